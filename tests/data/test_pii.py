"""Personal data: found by shape, checksum or the word before it; masked, and only that."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dialoop.data.pii import Numbering, find, is_identity_number, mask_conversation, passes_luhn
from dialoop.data.vault import Vault, read_vault
from dialoop.errors import ConfigError, DataError
from dialoop.types import Conversation, Message, ToolCall

TOKEN = re.compile(r"\[(?:EMAIL|PHONE|IP|CARD|ID)_R?\d+\]")


def found(text: str) -> list[tuple[str, str]]:
    return [(span.kind, text[span.start : span.end]) for span in find(text)]


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("write to bob.smith+shop@mail.example.co.uk.", "email", "bob.smith+shop@mail.example.co.uk"),
        ("我的邮箱是zhang_san@qq.com谢谢", "email", "zhang_san@qq.com"),
        ("call +44 20 7946 0958 now", "phone", "+44 20 7946 0958"),
        ("(415) 555-2671 is mine", "phone", "(415) 555-2671"),
        ("415-555-2671", "phone", "415-555-2671"),
        ("phone: 5551234567", "phone", "5551234567"),
        ("手机13812345678。", "phone", "13812345678"),
        ("tel:+86 138 1234 5678", "phone", "+86 138 1234 5678"),
        ("电话：010-62345678", "phone", "010-62345678"),
        ("固话0571-88886666转接", "phone", "0571-88886666"),
        ("电话是62345678", "phone", "62345678"),
        ("from 192.168.10.7.", "ip", "192.168.10.7"),
        ("at 2001:db8:85a3::8a2e:370:7334 it", "ip", "2001:db8:85a3::8a2e:370:7334"),
        ("card 4111 1111 1111 1111", "card", "4111 1111 1111 1111"),
        ("amex 378282246310005 ok", "card", "378282246310005"),
        ("银行卡号6222020000000000000", "card", "6222020000000000000"),
        ("身份证11010519491231002X号", "id", "11010519491231002X"),
    ],
)
def test_personal_data_is_found(text: str, kind: str, value: str) -> None:
    assert found(text) == [(kind, value)]


@pytest.mark.parametrize(
    "text",
    [
        "order 13812345678 has shipped",
        "订单号13812345678已发货",
        "运单号 6222020000000000000",
        "tracking number 4111111111111111",
        "on 2024-01-15 at 12:30:45",
        "2024年1月15日 12:30",
        "call me on 2023-10-11",
        "¥13812345678",
        "it costs $1,234,567.89 or 12345678",
        "version 10.0.0.1 of the app, v1.2.3.4",
        "版本 1.2.3.4",
        "ISBN 978-3-16-148410-0",
        "4111111111111112",
        "110105194912310021",
        "std::string and abc::def at 10:20:30",
        "3.14159265358979",
        "550e8400-e29b-41d4-a716-446655440000",
        "SKU-415-555-2671",
        "邮编100084，房间1203",
        "since 1638360000123 ms",
        "me@home and @bob at 5@ 6",
        "dial 911 or 12315",
        "localhost is 127.0.0.1",
    ],
)
def test_other_numbers_are_left_alone(text: str) -> None:
    assert found(text) == []


@given(st.text())
def test_spans_lie_in_order_inside_the_text(text: str) -> None:
    end = 0
    for span in find(text):
        assert end <= span.start < span.end <= len(text)
        end = span.end


PIECES = st.sampled_from(
    [
        "a@b.com",
        "13812345678",
        "+1 415 555 2671",
        "10.1.2.3",
        "4111111111111111",
        "11010519491231002X",
        "1",
        "-",
        ".",
    ]
) | st.text(max_size=6)


@given(st.lists(PIECES, max_size=12).map(" ".join))
def test_text_outside_the_placeholders_is_unchanged(text: str) -> None:
    row = Conversation((Message("user", text), Message("assistant", "ok")))
    masked = mask_conversation(row, Numbering())
    restored = masked.conversation.messages[0].content
    for token, value in masked.mapping.items():
        restored = restored.replace(token, value)
    if len({v.casefold() for v in masked.mapping.values()}) == len(find(text)) and not TOKEN.search(text):
        assert restored == text
    outside = text
    for span in reversed(find(text)):
        outside = outside[: span.start] + "\x00" + outside[span.end :]
    assert TOKEN.sub("\x00", masked.conversation.messages[0].content) == TOKEN.sub("\x00", outside)


@given(st.integers(1, 10**15).map(lambda n: f"4{n:014d}"[:15]))
def test_exactly_one_check_digit_in_ten_passes_luhn(prefix: str) -> None:
    assert sum(passes_luhn(prefix + digit) for digit in "0123456789") == 1


@given(st.integers(0, 999), st.dates())
def test_exactly_one_check_character_makes_an_identity_number(sequence: int, born: object) -> None:
    prefix = f"110105{born:%Y%m%d}{sequence:03d}".replace(" ", "0")
    if len(prefix) == 17 and 1850 <= int(prefix[6:10]) <= 2100:
        assert sum(is_identity_number(prefix + last) for last in "0123456789X") == 1


def test_a_value_keeps_its_placeholder_through_the_conversation() -> None:
    row = Conversation(
        (
            Message("user", "I am a@b.com, not c@d.com"),
            Message("assistant", "Thanks A@B.com, your phone is 138-1234-5678?"),
            Message("user", "yes +86 13812345678"),
        )
    )
    masked = mask_conversation(row, Numbering())
    assert [m.content for m in masked.conversation.messages] == [
        "I am [EMAIL_1], not [EMAIL_2]",
        "Thanks [EMAIL_1], your phone is [PHONE_1]?",
        "yes [PHONE_1]",
    ]
    assert dict(masked.kinds) == {"email": 3, "phone": 2}


def test_placeholders_that_were_there_before_are_not_given_out_again() -> None:
    row = Conversation((Message("user", "[EMAIL_1] is old, a@b.com is new"),))
    assert (
        mask_conversation(row, Numbering()).conversation.messages[0].content
        == "[EMAIL_1] is old, [EMAIL_2] is new"
    )


def test_tool_arguments_are_masked_and_stay_json() -> None:
    call = ToolCall("c1", "send", '{"to": "a@b.com", "phone": 13812345678, "count": 2}')
    row = Conversation((Message("user", "send it"), Message("assistant", tool_calls=(call,))))
    masked = mask_conversation(row, Numbering()).conversation.messages[1].tool_calls[0]
    assert json.loads(masked.arguments) == {"to": "[EMAIL_1]", "phone": "[PHONE_1]", "count": 2}


def test_metadata_is_masked_so_that_customers_stay_apart() -> None:
    run = Numbering("R")
    rows = [
        Conversation((Message("user", "hi"),), metadata={"customer": customer})
        for customer in ("a@b.com", "c@d.com", "a@b.com")
    ]
    masked = [mask_conversation(row, run).conversation.metadata["customer"] for row in rows]
    assert masked == ["[EMAIL_R1]", "[EMAIL_R2]", "[EMAIL_R1]"]


def test_the_mapping_is_encrypted_and_its_key_is_for_the_owner_alone(tmp_path: Path) -> None:
    pytest.importorskip("cryptography", reason="the pii extra is not installed")
    path, key = tmp_path / "pii.vault", tmp_path / "key"
    with Vault(path, key) as vault:
        vault.put("row-1", {"[EMAIL_1]": "a@b.com"})
    assert b"a@b.com" not in path.read_bytes()
    assert b"EMAIL" not in path.read_bytes()
    assert (path.stat().st_mode & 0o777, key.stat().st_mode & 0o777) == (0o600, 0o600)
    assert list(read_vault(path, key)) == [("row-1", {"[EMAIL_1]": "a@b.com"})]


def test_a_wrong_or_open_key_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("cryptography", reason="the pii extra is not installed")
    path, key, other = tmp_path / "pii.vault", tmp_path / "key", tmp_path / "other"
    with Vault(path, key) as vault:
        vault.put("row-1", {"[EMAIL_1]": "a@b.com"})
    with Vault(tmp_path / "second", other):
        pass
    with pytest.raises(DataError, match="not encrypted with the key"):
        list(read_vault(path, other))
    key.chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        list(read_vault(path, key))


def test_without_the_extra_a_mapping_is_refused_with_the_command_that_mends_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "cryptography.fernet", None)
    with pytest.raises(ConfigError, match=r"pip install 'dialoop\[pii\]'"):
        Vault(tmp_path / "pii.vault", tmp_path / "key")
    assert list(tmp_path.iterdir()) == []
