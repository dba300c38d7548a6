"""What reports on searches say, by key, in English and Chinese."""

from __future__ import annotations

from dialoop.evals.messages import REPORT_LANGUAGES, ReportLanguage

WORDS = {
    "search": ("Search", "超参数搜索"),
    "shootout": ("Methods side by side", "方法对比"),
    "best": (
        "Trial {number} is the best of {trials}: validation loss {loss}.",
        "{trials} 次试验中第 {number} 次最好：验证损失 {loss}。",
    ),
    "no_best": ("No trial came to its end yet.", "尚无试验完成。"),
    "counts": (
        "{completed} completed, {stopped} stopped early, {failed} failed; {minutes} minutes of training.",
        "完成 {completed} 次，提前停止 {stopped} 次，失败 {failed} 次；训练共 {minutes} 分钟。",
    ),
    "unlike": (
        "{fields} changes the loss or the rows that it is of: compare trials with the same value only.",
        "{fields} 会改变损失或计算损失的数据：只有取值相同的试验才能相互比较。",
    ),
    "importance": ("What mattered", "各参数的重要性"),
    "importance_how": (
        "Share of each field in whether a trial is among the good ones (PED-ANOVA).",
        "各参数对试验好坏的影响份额（PED-ANOVA）。",
    ),
    "importance_few": (
        "Told from four completed trials of different losses on.",
        "至少四次完成且损失不同的试验之后才能给出。",
    ),
    "coordinates": ("Trials by their values", "各试验的取值"),
    "coordinates_how": (
        "A line for each trial, the better the stronger; the best is thick.",
        "每条线是一次试验，颜色越深越好；粗线为最佳。",
    ),
    "table": ("All trials", "全部试验"),
    "trial": ("trial", "试验"),
    "outcome": ("outcome", "结果"),
    "completed": ("completed", "完成"),
    "stopped": ("stopped early", "提前停止"),
    "failed": ("failed", "失败"),
    "loss": ("validation loss", "验证损失"),
    "validations": ("validations", "验证次数"),
    "seconds": ("seconds", "秒"),
    "method": ("method", "方法"),
    "rate": ("learning rate", "学习率"),
    "perplexity": ("perplexity", "困惑度"),
    "trained": ("trained weights", "可训练参数"),
    "share": ("share", "占比"),
    "memory": ("peak memory", "内存峰值"),
    "speed": ("tokens/s", "词元/秒"),
    "shootout_how": (
        "Every method had the same rows, the same epochs and {rates} learning rates; its best is shown.",
        "每种方法使用相同的数据、相同的轮数，各试 {rates} 个学习率；表中为各自最佳。",
    ),
    "recipe": ("The best recipe", "最佳配方"),
}


def words(key: str, language: ReportLanguage, **values: object) -> str:
    """The message of `key`, filled in."""
    return WORDS[key][REPORT_LANGUAGES.index(language)].format(**values)
