"""The text cleaners: Unicode form, markup, language, quality."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dialoop.data.language import detect
from dialoop.data.markup import is_about_code, plain
from dialoop.data.quality import flags_of
from dialoop.data.unicode import normalise
from dialoop.types import Conversation, Message

ANY_TEXT = st.text(st.characters(codec=None)) | st.text(
    st.sampled_from("aＡ１＠．é\u0301 \r\n\x0b\u200b\u200d\u3000，。👧\ufeff中")
)


@given(ANY_TEXT)
def test_a_second_normalisation_changes_nothing(text: str) -> None:
    once, _ = normalise(text)
    assert normalise(once) == (once, ())


@given(ANY_TEXT)
def test_normal_text_is_nfc_without_controls_and_says_when_it_was_changed(text: str) -> None:
    once, reasons = normalise(text)
    assert unicodedata.is_normalized("NFC", once)
    assert not any(unicodedata.category(c) == "Cc" and c not in "\n\t" for c in once)
    assert bool(reasons) == (once != text)


@given(st.text(st.sampled_from("，。！？：；（）「」《》、·中文字符")))
def test_chinese_punctuation_stays_full_width(text: str) -> None:
    assert normalise(text) == (text, ())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ＡＢＣ１２３，好！", "ABC123，好！"),
        ("a@ｂ．ｃｏｍ", "a@b.com"),
        ("价格：９９．５０元", "价格：99.50元"),
        ("one\r\ntwo\rthree\u2028four", "one\ntwo\nthree\nfour"),
        ("👨\u200d👩\u200d👧 می\u200cخواهم", "👨\u200d👩\u200d👧 می\u200cخواهم"),
        ("half \ud83d pair", "half \ufffd pair"),
        ("a\u00a0b", "a b"),
    ],
)
def test_forms_are_unified_and_scripts_that_need_joiners_keep_them(text: str, expected: str) -> None:
    assert normalise(text)[0] == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<p>Hello <b>world</b></p><p>Bye</p>", "Hello world\nBye"),
        ("one<br/>two<BR>three", "one\ntwo\nthree"),
        ('see <a href="https://example.com/faq">our FAQ</a>.', "see our FAQ (https://example.com/faq)."),
        ("<script>track()</script><!-- x -->text", "text"),
        ("fish &amp; chips &lt; 5&nbsp;&#20803;", "fish & chips < 5 元"),
        ("<table><tr><td>a</td><td>b</td></tr></table>", "a b"),
        ('<span style="color:red">重要</span>通知', "重要通知"),
    ],
)
def test_markup_becomes_plain_text(text: str, expected: str) -> None:
    assert plain(text)[0] == expected


@pytest.mark.parametrize(
    "text",
    [
        "if a <b and c> d then 3 < 4 && 5 > 2",
        "x<y and y>z",
        "Is i<3 or i>5?",
        "List<String> names; Map<Key, Value> m",
        "write `<b>bold</b>` and `&amp;`",
        "```html\n<p>kept &amp; whole</p>\n```",
        "I <3 you",
        "a <- b -> c <= d >= e <> f",
        "https://example.com/?a=1&copy=2&lt=3",
        "> a quotation in markdown\nand my reply",
        "我觉得 5<6 而且 7>6",
    ],
)
def test_comparisons_code_and_quotations_are_left_alone(text: str) -> None:
    assert plain(text) == (text, ())


@given(st.text(st.sampled_from("ab <>=&;/\n\"'1")))
def test_text_without_a_tag_or_entity_name_is_unchanged(text: str) -> None:
    if "<a" not in text and "<b" not in text and "&" not in text:
        assert plain(text) == (text, ())


def test_talk_about_markup_is_recognised_in_both_languages() -> None:
    assert is_about_code("How do I close a <div> in HTML?")
    assert is_about_code("<b>标签怎么用？")
    assert not is_about_code("<b>Hello</b>, where is my parcel?")


@pytest.mark.parametrize(
    ("text", "expected", "reason"),
    [
        ("Thank you!\n\nSent from my iPhone", "Thank you!", "signature"),
        ("好的，谢谢\n发自我的iPhone", "好的，谢谢", "signature"),
        ("Yes please.\n-- \nBob Smith\nACME Ltd", "Yes please.", "signature"),
        ("[系统消息] 客服小王已接入\n您好", "您好", "automatic text"),
        ("【自动回复】您好，稍后回复您\n在吗", "在吗", "automatic text"),
        ("Fine.\n\nOn Mon, 1 Jan 2024, Bob wrote:\n> old\n> older", "Fine.", "quoted reply"),
        ("可以\n-----原始邮件-----\n发件人：张三", "可以", "quoted reply"),
        ("Ok.\n\nThis e-mail is confidential and intended only for you.", "Ok.", "disclaimer"),
    ],
)
def test_boilerplate_goes_and_the_message_stays(text: str, expected: str, reason: str) -> None:
    assert plain(text) == (expected, (reason,))


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("Where is my parcel?", "en"),
        ("ok", "en"),
        ("café au lait, please, I want it now", "en"),
        ("我要退货，怎么操作？", "zh"),
        ("我要退貨，怎麼操作？", "zh"),
        ("怎么用 Python 写 for loop", "zh"),
        ("How do you say 你好 in English?", "en"),
        ("こんにちは、返品したいです", "other"),
        ("주문을 취소하고 싶어요", "other"),
        ("Где мой заказ?", "other"),
        ("Bonjour, je voudrais retourner mon article", "other"),
        ("¿Dónde está mi pedido? Gracias", "other"),
        ("Wo ist meine Bestellung? Ich habe sie nicht", "other"),
        ("当然可以，我来帮您。", "zh"),
        ('The word "你好" means hello in Chinese.', "en"),
        ("12345 !!", "other"),
        ("", "other"),
    ],
)
def test_languages_are_told_apart(text: str, language: str) -> None:
    assert detect(text) == language


def chat(*turns: str) -> Conversation:
    return Conversation(
        tuple(Message("assistant" if i % 2 else "user", text) for i, text in enumerate(turns))
    )


@pytest.mark.parametrize(
    ("turns", "flag"),
    [
        (("hi", "ha ha ha ha ha ha ha ha ha ha"), "repetition"),
        (("你好", "好的好的好的好的好的好的好的好的好的好的"), "repetition"),
        (
            (
                "hi",
                "Sorry, I did not get that",
                "a",
                "Sorry, I did not get that",
                "b",
                "Sorry, I did not get that",
            ),
            "bot loop",
        ),
        (("hi", "PLEASE CALL OUR OFFICE TOMORROW MORNING"), "all capitals"),
        (("hi", "k"), "short answer"),
        (("hi", "Dear [Your Name], welcome"), "placeholder"),
        (("你好", "尊敬的【姓名】，您好"), "placeholder"),
        (("where is my order", "Where is my order?"), "echo"),
        (("hi", "it is the customerâ€™s choice"), "mojibake"),
        (("你好", "锟斤拷锟斤拷"), "mojibake"),
        (("hi", "fine<|im_end|>"), "control token"),
    ],
)
def test_a_bad_answer_gets_its_flag(turns: tuple[str, ...], flag: str) -> None:
    assert flag in flags_of(chat(*turns))


@pytest.mark.parametrize(
    "turns",
    [
        ("Where is my order?", "It was sent on Monday and should arrive within three days."),
        ("我的订单在哪里", "您的订单已于周一发出，预计三天内送达。"),
        ("price?", "----------------- 10.000.000.000 ================="),
        ("What is NASA?", "NASA is the National Aeronautics and Space Administration of the USA."),
        ("Êtes-vous là ?", "Oui « bien sûr », ça dépend de l'été à côté."),
    ],
)
def test_a_good_answer_gets_no_flag(turns: tuple[str, ...]) -> None:
    assert flags_of(chat(*turns)) == ()
