"""Text as the lists see it: without width, case, accents, invisible characters, lookalikes, or the
difference between traditional and simplified Chinese.

Every character is folded by itself, so that a text means the same however it is cut.
"""

from __future__ import annotations

import functools
import unicodedata

# Letters of other alphabets that look like Latin ones, after case is folded.
_LOOKALIKES = str.maketrans("аеорсухіјѕкмнтвԁɡıαεορτυνκιχγ", "aeopcyxijskmhtbdgiaeoptuvkixy")
# Traditional and simplified, in pairs: those of the shipped lists, and the commonest besides.
_PAIRS = (
    "殺杀 彈弹 槍枪 藥药 賣卖 買买 製制 毀毁 滅灭 賤贱 雜杂 種种 騷骚 亂乱 倫伦 穢秽 媽妈 爺爷 "
    "孫孙 腦脑 殘残 廢废 產产 強强 姦奸 幹干 蕩荡 兒儿 雞鸡 陰阴 陽阳 脫脱 賭赌 販贩 運运 錢钱 "
    "騙骗 盜盗 搶抢 綁绑 擊击 斃毙 傷伤 動动 體体 裡里 頭头 個个 們们 這这 來来 為为 說说 時时 "
    "會会 對对 國国 過过 還还 沒没 學学 樣样 請请 無无 開开 關关 點点 嗎吗 愛爱 應应 聽听 讓让 "
    "給给 誰谁 邊边 見见 後后 從从 發发 現现 問问 題题 話话 間间 當当 經经 長长 東东 車车 門门 "
    "電电 號号 碼码 網网 單单 馬马 鳥鸟 龍龙 黃黄 報报 復复 鬥斗 戰战 軍军 膽胆 齊齐 歲岁 懷怀 "
    "絕绝 繩绳 樓楼 斷断 氣气 遺遗 書书 輕轻 餓饿 療疗 養养 緬缅 偽伪 鈔钞 證证 辦办 詐诈 駭骇 "
    "數数 據据 庫库 銀银 滾滚 腫肿 噁恶 惡恶 醜丑 豬猪 獸兽 屍尸 剝剥 膚肤 內内 臟脏 腸肠 頸颈 "
    "斬斩 燒烧 歸归 異异 類类 "
)
_SIMPLIFIED = str.maketrans({pair[0]: pair[1] for pair in _PAIRS.split()})
_UNSEEN = frozenset({"Mn", "Me", "Cf", "Cc"})
_SPACES = frozenset({"Zs", "Zl", "Zp"})


@functools.lru_cache(maxsize=65536)
def fold_character(character: str) -> str:
    """What one character is to the lists; "" where it cannot be seen."""
    if character in "\t\n\r":
        return " "
    parts = [
        " " if unicodedata.category(each) in _SPACES else each
        for each in unicodedata.normalize("NFKD", character)
        if unicodedata.category(each) not in _UNSEEN
    ]
    return "".join(parts).casefold().translate(_LOOKALIKES).translate(_SIMPLIFIED)


def fold(text: str) -> str:
    """The whole text."""
    return "".join(map(fold_character, text))
