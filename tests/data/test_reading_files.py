"""Files as they come: encodings, compression, tables, labelled text, damage."""

from __future__ import annotations

import gzip
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import polars as pl
import pytest

from dialoop.data.sources import Item, Rejected, RejectsFile, detect, read, read_source, write_openai
from dialoop.errors import ConfigError, DataError
from dialoop.types import Conversation, Document, Message

ROWS = [
    {
        "messages": [
            {"role": "user", "content": f"订单{n}到哪儿了？é😀"},
            {"role": "assistant", "content": "正在配送。"},
        ]
    }
    for n in range(5)
]
JSONL = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS)


def read_all(path: Path, **options: Any) -> tuple[list[Item], list[Rejected]]:
    rejects: list[Rejected] = []
    return list(read(path, on_reject=rejects.append, **options)), rejects


def turns(item: Item) -> list[tuple[str, str]]:
    assert isinstance(item, Conversation)
    return [(message.role, message.content) for message in item.messages]


def exchange(question: str, answer: str, **metadata: Any) -> Conversation:
    return Conversation((Message("user", question), Message("assistant", answer)), metadata=metadata)


@pytest.mark.parametrize(
    ("written", "found"),
    [
        ("utf-8", "utf-8"),
        ("utf-8-sig", "utf-8-sig"),
        ("utf-16-le", "utf-16-le"),
        ("utf-16-be", "utf-16-be"),
        ("utf-16", "utf-16-le"),
        ("gb18030", "gb18030"),
    ],
)
@pytest.mark.parametrize("layout", ["lines", "list"])
def test_every_encoding_reads_the_same(tmp_path: Path, written: str, found: str, layout: str) -> None:
    path = tmp_path / "a.json"
    text = JSONL if layout == "lines" else json.dumps(ROWS, ensure_ascii=False, indent=1)
    path.write_bytes(text.encode(written))
    assert detect(path).encoding == found
    items, rejects = read_all(path)
    assert rejects == []
    assert [turns(item)[0][1] for item in items] == [row["messages"][0]["content"] for row in ROWS]


def test_gbk_text_reads_as_chinese(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes("问：几点开门？\n答：九点。\n".encode("gbk"))
    assert read_all(path)[0] == [exchange("几点开门？", "九点。")]


@pytest.mark.parametrize("encoding", ["gbk", "big5", "utf-16-le", "utf-16-be", "utf-8"])
def test_text_without_ascii_shows_its_encoding(tmp_path: Path, encoding: str) -> None:
    asked, said = "請問你們幾點開門，週末也有人嗎？", "我們每天早上九點開門，週末休息，歡迎光臨。"
    if encoding == "gbk":
        asked, said = "请问你们几点开门，周末也有人吗？", "我们每天早上九点开门，周末休息，欢迎光临。"
    path = tmp_path / "a.txt"
    path.write_bytes(
        f"問：{asked}\n答：{said}\n".replace("問", "问" if encoding == "gbk" else "問").encode(encoding) * 20
    )
    items, rejects = read_all(path)
    assert rejects == []
    assert items == [exchange(asked, said)] * 20


def test_a_given_encoding_wins_over_the_guess(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes("Q: Wie heißt du?\nA: Jürgen.\n".encode("cp1252"))
    assert read_all(path, encoding="windows-1252")[0] == [exchange("Wie heißt du?", "Jürgen.")]
    assert detect(path, encoding="latin-1").encoding == "iso8859-1"


@pytest.mark.parametrize("written", ["utf-16", "utf-16-be"])
def test_utf_16_may_be_given_without_its_byte_order(tmp_path: Path, written: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(JSONL.encode(written))
    assert read_all(path, encoding="utf-16") == read_all(path)


@pytest.mark.parametrize("name", ["utf-9", "base64", "utf-32"])
def test_an_encoding_that_cannot_be_read_is_named(tmp_path: Path, name: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(JSONL, encoding="utf-8")
    with pytest.raises(ConfigError, match=name):
        detect(path, encoding=name)


def test_chinese_that_begins_late_in_a_file_is_found(tmp_path: Path) -> None:
    ascii_rows = json.dumps({"prompt": "where is it", "completion": "on its way"}) + "\n"
    chinese = json.dumps({"prompt": "在哪里", "completion": "在路上"}, ensure_ascii=False) + "\n"
    path = tmp_path / "a.jsonl"
    path.write_bytes(ascii_rows.encode() * 22_000 + chinese.encode("gbk") * 4_000)
    assert detect(path).encoding == "gb18030"


@pytest.mark.parametrize("encoding", ["utf-8", "gb18030", "utf-16-le"])
@pytest.mark.parametrize("layout", ["lines", "list"])
def test_a_line_with_broken_bytes_is_rejected_with_its_number(
    tmp_path: Path, encoding: str, layout: str
) -> None:
    lines = JSONL.splitlines(keepends=True) if layout == "lines" else ["[" + json.dumps(ROWS[0]) + ",\n"]
    if layout == "list":
        lines += [json.dumps(row, ensure_ascii=False) + ",\n" for row in ROWS[1:4]] + [
            json.dumps(ROWS[4]) + "\n]"
        ]
    broken = b"\x00\xd8" if encoding == "utf-16-le" else b"\xff"
    raw = [line.encode(encoding) for line in lines]
    at = raw[3].index("订".encode(encoding))
    raw[3] = raw[3][:at] + broken + raw[3][at:]
    path = tmp_path / "a.json"
    path.write_bytes(b"".join(raw))
    items, rejects = read_all(path)
    assert len(items) == 4
    assert [reject.line for reject in rejects] == [4]


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.unknown"])
def test_gzip_is_told_by_its_bytes(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(gzip.compress(JSONL.encode()))
    assert detect(path).compression == "gzip"
    assert len(read_all(path)[0]) == 5


def test_a_cut_gzip_file_is_an_error_after_its_good_rows(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.gz"
    rows = "".join(json.dumps({"prompt": str(n * n), "completion": str(n)}) + "\n" for n in range(40_000))
    path.write_bytes(gzip.compress(rows.encode(), 1)[:-2_000])
    items = read(path, on_reject=lambda rejected: None)
    assert isinstance(next(items), Conversation)
    with pytest.raises(DataError, match="gzip damaged or cut short after"):
        list(items)


def test_a_bad_row_is_rejected_with_file_line_and_reason_and_the_others_are_read(tmp_path: Path) -> None:
    lines = JSONL.splitlines()
    lines[1:1] = ["", '{"messages": [', "not json"]
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(lines), encoding="utf-8")
    items, rejects = read_all(path)
    assert len(items) == 5
    assert [(r.file, r.line) for r in rejects] == [(str(path), 3), (str(path), 4)]
    assert all(r.reason.startswith("not JSON: ") for r in rejects)


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("fault", ["missing colon", "missing quote", "missing brace"])
@pytest.mark.parametrize("position", [0, 2, 4])
def test_a_broken_element_of_a_list_does_not_take_the_next_with_it(
    tmp_path: Path, indent: int | None, fault: str, position: int
) -> None:
    parts = [json.dumps(row, ensure_ascii=False, indent=indent) for row in ROWS]
    good = parts[position]
    parts[position] = {
        "missing colon": good.replace('"role":', '"role"', 1),
        "missing quote": good.replace('"assistant"', '"assistant', 1),
        "missing brace": good[:-1],
    }[fault]
    path = tmp_path / "a.json"
    path.write_text("[\n" + ",\n".join(parts) + "\n]", encoding="utf-8")
    items, rejects = read_all(path)
    assert len(items) == 4
    assert [r.line for r in rejects] == [2 + position * (good.count("\n") + 1)]


def test_elements_longer_than_a_chunk_are_read_with_their_lines(tmp_path: Path) -> None:
    rows = [{"prompt": "q" * 400_000, "completion": str(n)} for n in range(4)]
    path = tmp_path / "a.json"
    path.write_text("[\n" + ",\n".join(json.dumps(row) for row in [*rows, {"prompt": 3}]) + "\n]")
    items, rejects = read_all(path)
    assert [turns(item)[1][1] for item in items] == ["0", "1", "2", "3"]
    assert [r.line for r in rejects] == [6]


def test_a_list_inside_an_object_and_objects_one_after_another_are_read(tmp_path: Path) -> None:
    wrapped = tmp_path / "wrapped.json"
    wrapped.write_text(json.dumps({"version": "1", "data": ROWS, "note": 1}, indent=1))
    items, rejects = read_all(wrapped)
    assert (len(items), len(rejects)) == (5, 1)
    stream = tmp_path / "stream.json"
    stream.write_text("\n".join(json.dumps(row, indent=1) for row in ROWS))
    assert len(read_all(stream)[0]) == 5


def test_a_list_that_is_cut_short_gives_its_rows_and_a_reject(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps(ROWS)[:-1])
    items, rejects = read_all(path)
    assert len(items) == 5
    assert "ends before its list" in rejects[0].reason


def test_half_a_surrogate_pair_is_rejected(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(JSONL + r'{"messages": [{"role": "user", "content": "\ud83d"}]}', encoding="utf-8")
    items, rejects = read_all(path)
    assert len(items) == 5
    assert "surrogate" in rejects[0].reason


CSV = '问题,答案,分类\n多久到货？,三天。,物流\n"能退吗，\n几天内？",七天。,售后\n,,\n没有答案\n'


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "gb18030", "utf-16"])
def test_chinese_tables_find_their_columns(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "faq.csv"
    path.write_bytes(CSV.encode(encoding))
    detected = detect(path)
    assert detected.format == "table"
    assert detected.columns == {"user": "问题", "assistant": "答案"}
    assert "user=问题" in str(detected)
    items, rejects = read_all(path)
    assert items == [
        exchange("多久到货？", "三天。", 分类="物流"),
        exchange("能退吗，\n几天内？", "七天。", 分类="售后"),
    ]
    assert [r.line for r in rejects] == [5]


@pytest.mark.parametrize(
    ("name", "separator"), [("a.tsv", "\t"), ("a.csv", ";"), ("export", "|"), ("a.csv", ",")]
)
def test_the_separator_of_a_table_is_found(tmp_path: Path, name: str, separator: str) -> None:
    path = tmp_path / name
    path.write_text(
        "".join(
            separator.join(cells) + "\n" for cells in [("Question", "Answer"), ("a b", "c d"), ("e", "f")]
        )
    )
    assert read_all(path)[0] == [exchange("a b", "c d"), exchange("e", "f")]


def test_a_cell_with_an_unquoted_separator_rejects_its_row(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("question,answer\nhi,hello\nhi,hello, you\nbye,bye\n")
    items, rejects = read_all(path)
    assert len(items) == 2
    assert [(r.line, r.reason[:8]) for r in rejects] == [(3, "3 cells ")]


def test_broken_bytes_in_a_table_reject_their_row(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes("问题,答案\n".encode() + "好,好\n".encode() * 5 + b"\xff,x\n" + "坏,坏\n".encode())
    items, rejects = read_all(path)
    assert len(items) == 6
    assert [r.line for r in rejects] == [7]


LOG = """session_id,created_at,sender,message,channel
s1,2024-01-05 09:00:10,customer,Where is my order?,web
s2,2024-01-05 09:00:12,customer,I want a refund.,app
s1,2024-01-05 09:00:40,agent,On its way.,web
s2,2024-01-05 09:01:40,agent,It is done.,app
s1,2024-01-05 09:00:20,customer,Order 7.,web
s1,2024-01-05 09:02:00,robot3,ping,web
s2,2024-01-05 09:02:00,agent,,app
"""


def test_a_service_desk_log_becomes_conversations_in_order_of_time(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text(LOG)
    assert detect(path).columns["conversation"] == "session_id"
    items, rejects = read_all(path)
    assert [turns(item) for item in items] == [
        [("user", "Where is my order?"), ("user", "Order 7."), ("assistant", "On its way.")],
        [("user", "I want a refund."), ("assistant", "It is done.")],
    ]
    assert [item.metadata for item in items if isinstance(item, Conversation)] == [
        {"id": "s1", "channel": "web"},
        {"id": "s2", "channel": "app"},
    ]
    assert [r.line for r in rejects] == [7, 8]


def test_a_chinese_log_as_json_lines_becomes_conversations(tmp_path: Path) -> None:
    said = [
        ("甲", "客户", "在吗"),
        ("甲", "客服", "在的"),
        ("乙", "买家", "发货了吗"),
        ("乙", "机器人", "已发货"),
    ]
    path = tmp_path / "log.jsonl"
    path.write_text(
        "".join(
            json.dumps({"会话ID": a, "角色": b, "内容": c}, ensure_ascii=False) + "\n" for a, b, c in said
        ),
        encoding="utf-8",
    )
    items, rejects = read_all(path)
    assert rejects == []
    assert [turns(item) for item in items] == [
        [("user", "在吗"), ("assistant", "在的")],
        [("user", "发货了吗"), ("assistant", "已发货")],
    ]


def test_turn_numbers_alone_tell_conversations_apart(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("turn,role,content\n1,user,a\n2,assistant,b\n1,user,c\n2,assistant,d\n")
    assert [turns(item) for item in read_all(path)[0]] == [
        [("user", "a"), ("assistant", "b")],
        [("user", "c"), ("assistant", "d")],
    ]


def test_messages_without_a_conversation_column_ask_for_it(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("role,content\nuser,a\nassistant,b\n")
    with pytest.raises(DataError, match="conversation=session_id"):
        detect(path)


def test_parquet_reads_columns_and_nested_messages(tmp_path: Path) -> None:
    flat, nested = tmp_path / "flat.parquet", tmp_path / "nested.parquet"
    pl.DataFrame({"question": ["a", "c"], "answer": ["b", None]}).write_parquet(flat)
    pl.DataFrame([{"messages": row["messages"], "id": n} for n, row in enumerate(ROWS)]).write_parquet(nested)
    items, rejects = read_all(flat)
    assert items == [exchange("a", "b")]
    assert [r.line for r in rejects] == [3]
    assert detect(nested).format == "openai"
    assert len(read_all(nested)[0]) == 5


def cell_of(text: str) -> str:
    return f'<c t="inlineStr"><is><t>{escape(text)}</t></is></c>'


def workbook(path: Path, sheets: dict[str, list[list[str]]]) -> Path:
    """A minimal workbook of inline strings."""
    kinds = "application/vnd.openxmlformats-officedocument.spreadsheetml."
    office = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
    package = "http://schemas.openxmlformats.org/package/2006"
    main = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
    with zipfile.ZipFile(path, "w") as file:
        parts = "".join(
            f'<Override PartName="/xl/worksheets/s{n}.xml" ContentType="{kinds}worksheet+xml"/>'
            for n in range(len(sheets))
        )
        file.writestr(
            "[Content_Types].xml",
            f'<Types xmlns="{package}/content-types"><Default Extension="rels" '
            'ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
            f'<Override PartName="/xl/workbook.xml" ContentType="{kinds}sheet.main+xml"/>{parts}</Types>',
        )
        file.writestr(
            "_rels/.rels",
            f'<Relationships xmlns="{package}/relationships"><Relationship Id="r" '
            f'Type="{office}/officeDocument" Target="xl/workbook.xml"/></Relationships>',
        )
        listed = "".join(
            f'<sheet name="{name}" sheetId="{n + 1}" r:id="r{n}"/>' for n, name in enumerate(sheets)
        )
        file.writestr(
            "xl/workbook.xml",
            f'<workbook xmlns="{main}" xmlns:r="{office}"><sheets>{listed}</sheets></workbook>',
        )
        links = "".join(
            f'<Relationship Id="r{n}" Type="{office}/worksheet" Target="worksheets/s{n}.xml"/>'
            for n in range(len(sheets))
        )
        file.writestr(
            "xl/_rels/workbook.xml.rels",
            f'<Relationships xmlns="{package}/relationships">{links}</Relationships>',
        )
        for n, rows in enumerate(sheets.values()):
            cells = "".join(
                f'<row r="{r}">{"".join(map(cell_of, row))}</row>' for r, row in enumerate(rows, 1)
            )
            sheet = f'<worksheet xmlns="{main}"><sheetData>{cells}</sheetData></worksheet>'
            file.writestr(f"xl/worksheets/s{n}.xml", sheet)
    return path


def test_a_workbook_reads_its_first_sheet_and_names_the_others(tmp_path: Path) -> None:
    first = [["客户问题", "客服回复"], ["几点开门？", "九点。"]]
    second = [["question", "answer"], ["open?", "at nine"], ["x", "y"]]
    path = workbook(tmp_path / "faq.xlsx", {"常见问题": first, "English": second})
    assert "'English'" in str(detect(path))
    assert read_all(path)[0] == [exchange("几点开门？", "九点。")]
    assert len(read_all(path, columns={"sheet": "English"})[0]) == 2


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Q: a?\nA: b\nmore\n\nQ: c?\nA: d\n", [["a?", "b\nmore"], ["c?", "d"]]),
        ("Q: a?\n\nA: b\n\nQ: c?\n\nA: d", [["a?", "b"], ["c?", "d"]]),
        ("Q1：a？\nA1：b\nQ2：c？\nA2：d", [["a？", "b"], ["c？", "d"]]),
        ("问：a？\n答：b\n\n问：c？\n答：d", [["a？", "b"], ["c？", "d"]]),
        (
            "User: a\nAssistant: b\nUser: c\nAssistant: d\n\nUser: e\nAssistant: f",
            [["a", "b", "c", "d"], ["e", "f"]],
        ),
        ("客户：a\n客服：b\n客户：c\n客服：d\n----\n客户：e\n客服：f", [["a", "b", "c", "d"], ["e", "f"]]),
        ("[2024-01-05 09:00] 客户：a\n[2024-01-05 09:01] 客服：b", [["a", "b"]]),
    ],
)
def test_labelled_text_becomes_conversations(tmp_path: Path, text: str, expected: list[list[str]]) -> None:
    path = tmp_path / "faq.txt"
    path.write_text(text, encoding="utf-8")
    items, rejects = read_all(path)
    assert rejects == []
    assert [[content for _, content in turns(item)] for item in items] == expected


def test_questions_without_answers_and_stray_text_are_rejected_with_their_lines(tmp_path: Path) -> None:
    path = tmp_path / "faq.txt"
    path.write_text("Our questions\n\nQ: a?\nA: b\n\nQ: lost?\n\nQ: c?\nA: d\n")
    items, rejects = read_all(path)
    assert len(items) == 2
    assert [(r.line, r.reason) for r in rejects] == [
        (1, "text before the first label"),
        (6, "a question without an answer"),
    ]


def test_labels_of_any_language_can_be_named(tmp_path: Path) -> None:
    path = tmp_path / "faq.txt"
    path.write_text("Kunde: a?\nBerater: b\n")
    assert read_all(path, columns={"user": "Kunde", "assistant": "Berater"})[0] == [exchange("a?", "b")]


def test_plain_text_is_a_document_a_line_or_a_block(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("one\ntwo\n")
    assert read_all(path)[0] == [Document("one"), Document("two")]
    path.write_text("one\ntwo\n\nthree: 3\n")
    assert read_all(path)[0] == [Document("one\ntwo"), Document("three: 3")]


@pytest.mark.parametrize(
    "content", [b"", b"\n \n", b"[]", b"\x7fELF\x02\x01\x01\x00\x00\x00\x03\x00>\x00" * 40, b"PK\x03\x04zip"]
)
def test_a_file_without_rows_is_an_error_with_its_name(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"a\.bin"):
        detect(path)


def test_a_missing_file_and_a_folder_are_errors(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        detect(tmp_path / "none.jsonl")
    with pytest.raises(DataError, match="folder"):
        detect(tmp_path)


def test_an_unreadable_file_shows_line_and_expected_form(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("{'messages': []}\n{'messages': []}\n")
    with pytest.raises(DataError, match=r'a\.jsonl: line 1: not JSON: .*expected \{"messages"'):
        detect(path)


def test_sources_are_read_by_path_by_file_and_by_sample(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.jsonl").write_text(JSONL, encoding="utf-8")
    monkeypatch.setenv("SHOP_DATA", str(tmp_path))
    rejects: list[Rejected] = []
    for source in ("file:${SHOP_DATA}/a.jsonl", str(tmp_path / "a.jsonl")):
        assert len(list(read_source(source, on_reject=rejects.append))) == 5
    for source in ("sample:en", "sample:zh"):
        assert isinstance(next(read_source(source, on_reject=rejects.append)), Conversation)
    assert rejects == []
    with pytest.raises(DataError, match="known: en, moderation, preference, zh"):
        read_source("sample:fr", on_reject=rejects.append)


def test_rejects_are_written_with_file_line_and_reason_and_counted(tmp_path: Path) -> None:
    with RejectsFile(tmp_path / "out" / "rejects.jsonl") as rejects:
        for line in (3, 9):
            rejects(Rejected("文件.jsonl", line, "not JSON"))
        rejects(Rejected("文件.jsonl", 11, "empty"))
    assert rejects.total == 3
    assert rejects.by_reason == {"not JSON": 2, "empty": 1}
    first = json.loads((tmp_path / "out" / "rejects.jsonl").read_text(encoding="utf-8").splitlines()[0])
    assert first == {"file": "文件.jsonl", "line": 3, "reason": "not JSON"}


def test_a_run_without_rejects_leaves_no_file_and_removes_the_last_one(tmp_path: Path) -> None:
    (tmp_path / "rejects.jsonl").write_text("old")
    with RejectsFile(tmp_path / "rejects.jsonl") as rejects:
        pass
    assert rejects.total == 0
    assert not (tmp_path / "rejects.jsonl").exists()


def test_writing_that_fails_leaves_the_old_file_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("old")

    def broken() -> Iterator[Conversation]:
        yield exchange("a", "b")
        raise DataError("stop")

    with pytest.raises(DataError, match="stop"):
        write_openai(path, broken())
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.jsonl"]
