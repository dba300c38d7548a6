"""The words of the cleaning report in English and Chinese."""

from __future__ import annotations

from collections.abc import Mapping

Wording = Mapping[str, str]

_EN: Wording = {
    "summary": "{rows} rows read, {kept} kept, {rejected} rejected ({share:.1%})",
    "unreadable": "{count} rows could not be read (see the rejects file)",
    "languages": "languages: {listed}",
    "step": "step",
    "seen": "seen",
    "changed": "changed",
    "removed": "removed",
    "flagged": "flagged",
    "what": "what",
    "unicode": "Unicode form",
    "html": "HTML and boilerplate",
    "roles": "role order",
    "turns": "turns",
    "language": "language",
    "quality": "quality",
    "pii": "personal data",
    "exact": "exact duplicates",
    "near": "near-duplicates",
}

_ZH: Wording = {
    "summary": "读入 {rows} 行，保留 {kept} 行，拒收 {rejected} 行（{share:.1%}）",
    "unreadable": "{count} 行无法读取（见拒收文件）",
    "languages": "语言：{listed}",
    "step": "步骤",
    "seen": "检查",
    "changed": "修改",
    "removed": "移除",
    "flagged": "标记",
    "what": "内容",
    "unicode": "Unicode 规范化",
    "html": "HTML 与套话",
    "roles": "角色顺序",
    "turns": "轮次",
    "language": "语言",
    "quality": "质量",
    "pii": "个人信息",
    "exact": "完全重复",
    "near": "近似重复",
    "line end": "换行符",
    "control character": "控制字符",
    "invisible character": "不可见字符",
    "full-width letter or digit": "全角字母或数字",
    "composed form": "组合形式",
    "space": "空格",
    "tag": "标签",
    "entity": "实体",
    "signature": "签名",
    "quoted reply": "引用的回复",
    "automatic text": "自动文本",
    "disclaimer": "免责声明",
    "merged turns of one role": "合并同一角色的连续轮次",
    "leading assistant turn": "开头的助手轮次",
    "tool turn without a call": "没有对应调用的工具轮次",
    "empty turn": "空轮次",
    "an answer is empty": "有一个回答为空",
    "no user turn": "没有用户轮次",
    "no assistant turn": "没有助手轮次",
    "turn too long": "轮次过长",
    "too many turns": "轮次过多",
    "language not wanted": "不需要的语言",
    "language disagrees": "语言标注不符",
    "repetition": "重复",
    "bot loop": "机器人循环",
    "all capitals": "全大写",
    "short answer": "回答过短",
    "placeholder": "残留占位符",
    "echo": "复述问题",
    "mojibake": "乱码",
    "control token": "控制标记",
    "email": "电子邮件",
    "phone": "电话",
    "ip": "IP 地址",
    "card": "银行卡",
    "id": "身份证号",
    "duplicate": "重复",
    "near-duplicate": "近似重复",
}


def wording(language: str) -> Wording:
    """The catalogue of `zh`, or the English one."""
    return _ZH if language == "zh" else _EN
