"""What reports say, by key, in English and Chinese."""

from __future__ import annotations

from types import MappingProxyType
from typing import Literal

ReportLanguage = Literal["en", "zh"]
REPORT_LANGUAGES: tuple[ReportLanguage, ...] = ("en", "zh")

MESSAGES = MappingProxyType(
    {
        "better": ("better: {what}", "更好：{what}"),
        "worse": ("worse: {what}", "更差：{what}"),
        "higher": ("higher: {what}", "升高：{what}"),
        "lower": ("lower: {what}", "降低：{what}"),
        "same": ("no difference in any of the {cases} cases", "{cases} 个样例全无差别"),
        "unclear": (
            "cannot tell with {cases} cases; about {needed} would be needed",
            "仅凭 {cases} 个样例无法判断；约需 {needed} 个",
        ),
        "unclear_close": (
            "cannot tell with {cases} cases: too close to call, a change of {detectable} would show",
            "仅凭 {cases} 个样例无法判断：差距太小，变化达到 {detectable} 才能看出",
        ),
        "unclear_many": (
            "cannot tell with {cases} cases: among {family} comparisons it may be chance",
            "仅凭 {cases} 个样例无法判断：在 {family} 项比较之中可能只是偶然",
        ),
        "unclear_few": (
            "cannot tell with {cases} cases in {groups} group(s): add cases of other scenarios",
            "仅凭 {groups} 组共 {cases} 个样例无法判断：请加入其他场景的样例",
        ),
        "short_better": ("better", "更好"),
        "short_worse": ("worse", "更差"),
        "short_higher": ("higher", "升高"),
        "short_lower": ("lower", "降低"),
        "short_same": ("no change", "无变化"),
        "short_unclear": ("cannot tell", "无法判断"),
        "lang_en": ("English", "英文"),
        "lang_zh": ("Chinese", "中文"),
        "lang_all": ("All languages", "全部语言"),
        "lang_other": ("Other languages", "其他语言"),
        "perplexity": ("perplexity", "困惑度"),
        "exact match": ("exact match", "完全匹配"),
        "preference accuracy": ("preference accuracy", "偏好准确率"),
        "preference margin": ("preference margin", "偏好间隔"),
        "length ratio": ("length ratio", "长度比"),
        "ROUGE-L by words": ("ROUGE-L by words", "ROUGE-L（按词）"),
        "endless": ("answers without end", "无休止重复"),
        "accuracy": ("accuracy", "准确率"),
        "macro F1": ("macro F1", "宏平均 F1"),
        "span F1": ("span F1", "片段 F1"),
        "valid JSON": ("valid JSON", "有效 JSON"),
        "equal JSON": ("equal JSON", "JSON 相等"),
        "refusals": ("refusals", "拒答"),
        "right refusals": ("right refusals", "拒答得当"),
        "ECE": ("calibration error (ECE)", "校准误差（ECE）"),
        "embedding similarity": ("embedding similarity", "向量相似度"),
        "title": ("Before and after", "训练前后对比"),
        "side_before": ("the model before", "之前的模型"),
        "side_after": ("the tuned model", "微调后的模型"),
        "head_better": ("{after} is better than {before}.", "{after} 优于 {before}。"),
        "head_worse": ("{after} is worse than {before}.", "{after} 劣于 {before}。"),
        "head_mixed": ("{after} is better than {before} in part.", "{after} 在部分指标上优于 {before}。"),
        "head_trade": (
            "{after} is better than {before} in part and worse in part.",
            "与 {before} 相比，{after} 有好有坏。",
        ),
        "head_unclear": (
            "Whether {after} is better than {before} cannot be told.",
            "无法判断 {after} 是否优于 {before}。",
        ),
        "head_same": ("{after} answers as {before} does.", "{after} 与 {before} 没有差别。"),
        "advice_take": ("Take {after}: nothing is shown to be lost.", "可采用 {after}：未见任何损失。"),
        "advice_keep": ("Keep {before}.", "请保留 {before}。"),
        "advice_weigh": (
            "Weigh what {after} gains against what it loses: a policy of `dialoop gate` can decide it.",
            "请权衡 {after} 的得失：可用 `dialoop gate` 的规定来决定。",
        ),
        "advice_same": ("Take whichever costs less.", "取成本较低者即可。"),
        "advice_unclear": (
            "Keep {before} until more speaks for {after}.",
            "在 {after} 有更多依据之前，请保留 {before}。",
        ),
        "advice_unclear_needed": (
            "Keep {before} until more speaks for {after}: about {needed} cases would tell.",
            "在 {after} 有更多依据之前，请保留 {before}：约需 {needed} 个样例才能判断。",
        ),
        "advice_leaked": (
            "Mind that {share} % of the test dialogues repeat training dialogues, which flatters what was "
            "trained on them.",
            "请注意：{share}% 的测试对话与训练对话重复，会高估在其上训练的模型。",
        ),
        "advice_slower": ("It takes {times} times as long to answer.", "它回答所需时间为之前的 {times} 倍。"),
        "nearest_beaten": (
            "It beats the nearest-neighbour baseline "
            "(the answer of the most similar training history): {where}.",
            "它优于最近邻基线（直接给出最相似训练对话的回答）：{where}。",
        ),
        "nearest_lost": (
            "It does not beat the nearest-neighbour baseline "
            "(the answer of the most similar training history): {where}.",
            "它没有胜过最近邻基线（直接给出最相似训练对话的回答）：{where}。",
        ),
        "nearest_unclear": (
            "It is not shown to beat the nearest-neighbour baseline "
            "(the answer of the most similar training history): {where}.",
            "尚不能证明它胜过最近邻基线（直接给出最相似训练对话的回答）：{where}。",
        ),
        "against": (
            "{where} {metric} {after} against {nearest}",
            "{where} {metric} {after} 对 {nearest}",
        ),
        "counts": (
            "{cases} answered turns in {groups} groups; {scored} turns scored for perplexity; "
            "{skipped} skipped.",
            "共 {groups} 组、{cases} 个已回答轮次；{scored} 个轮次用于困惑度；跳过 {skipped} 个。",
        ),
        "shortened": (
            "{shortened} of {cases} histories were too long for the context and lost their oldest exchanges.",
            "{cases} 段历史中有 {shortened} 段超出上下文，略去了最早的几轮。",
        ),
        "metrics": ("Metrics", "指标"),
        "metric": ("metric", "指标"),
        "before": ("before", "训练前"),
        "after": ("after", "训练后"),
        "nearest": ("nearest neighbour", "最近邻"),
        "nearest_short": ("nearest", "最近邻"),
        "delta": ("change", "变化"),
        "interval": ("change, 95 %", "变化 95% 区间"),
        "p": ("p", "p"),
        "n": ("cases", "样例数"),
        "detectable": ("smallest visible change", "可见的最小变化"),
        "verdict": ("verdict", "结论"),
        "how": (
            "Paired bootstrap (Koehn 2004), {resamples} resamples, seed {seed}. Cases of one group "
            "(scenario) depend on each other, so whole groups are resampled ({groups} groups). "
            "Intervals of the change hold 95 %; p is two-sided and corrected for the number of metrics of a "
            "language (Holm 1979), verdicts with it; where cases are right or wrong and stand alone it is "
            "McNemar's. The smallest visible change is told four times in five. "
            "BLEU and chrF are never taken over mixed languages.",
            "配对自助法（Koehn 2004），重采样 {resamples} 次，种子 {seed}。同一组（场景）的样例彼此相关，"
            "因此按组整体重采样（{groups} 组）。变化量的区间为 95%；p 为双侧，"
            "并按每种语言的指标个数校正（Holm 1979），结论亦然；样例只有对错且彼此独立时用 McNemar 检验。"
            "“可见的最小变化”有五分之四的机会被看出。BLEU 与 chrF 从不跨语言合并。",
        ),
        "signatures": ("Metric signatures", "指标签名"),
        "slices": ("Slices, worst first", "分项对比（最差在前）"),
        "slices_how": (
            "{metric} by {keys}. With many slices some intervals miss zero by chance; "
            "they are not corrected.",
            "按{keys}分项的 {metric}。分项较多时，个别区间可能偶然不含零；此处未作校正。",
        ),
        "slices_more": (
            "{more} more slices are in report.json.",
            "其余 {more} 个分项见 report.json。",
        ),
        "slice": ("slice", "分项"),
        "key_language": ("language", "语言"),
        "key_intent": ("intent", "意图"),
        "key_turn": ("turn", "轮次"),
        "key_length": ("length in words or characters", "长度（词或字）"),
        "retained": ("Retention", "能力保持"),
        "retained_how": (
            "Other sets, old or general, that the model was not trained for: what it forgot shows here.",
            "其他（旧的或通用的）数据集：遗忘在此显现。",
        ),
        "set": ("set", "数据集"),
        "confusion": ("Who was taken for whom", "混淆矩阵"),
        "confusion_how": (
            "Rows: the right label; columns: what was said; darker: a larger share of the row. "
            "At most 40 labels, the commonest.",
            "行为正确标签，列为模型所答；颜色越深，占该行的比例越大。最多显示最常见的 40 个标签。",
        ),
        "costs": ("Speed and memory", "速度与内存"),
        "costs_how": (
            "{answers} answers, each given alone.",
            "{answers} 个回答，逐个生成。",
        ),
        "median_seconds": ("seconds an answer (median)", "每个回答的秒数（中位）"),
        "p95_seconds": ("seconds an answer (95 %)", "每个回答的秒数（95%）"),
        "tokens_per_second": ("tokens a second", "每秒词元数"),
        "times_slower": ("slowdown", "变慢倍数"),
        "memory_mb": ("weights, MB", "权重（MB）"),
        "weight_bytes": ("weights, MB", "权重（MB）"),
        "forgot": ("It got worse on: {where}.", "以下方面变差：{where}。"),
        "forgot_not": (
            "On none of the retained sets is it shown to be worse.",
            "在保持集上均未见变差。",
        ),
        "curves": ("Training curves", "训练曲线"),
        "loss": ("loss by update", "损失（按更新步）"),
        "train_loss": ("training", "训练"),
        "valid_loss": ("validation", "验证"),
        "learning_rate": ("learning rate", "学习率"),
        "grad_norm": ("gradient norm", "梯度范数"),
        "update": ("update", "更新步"),
        "no_curves": ("No training rows were given.", "没有训练记录。"),
        "examples": ("Side by side", "逐例对照"),
        "examples_how": (
            "Chosen by change in {metric}. Marked words also stand in the reference, in the same order.",
            "按 {metric} 的变化挑选。标记的词也按相同顺序出现在参考回答中。",
        ),
        "gains": ("Largest gains", "进步最大"),
        "losses": ("Largest losses", "退步最大"),
        "no_losses": ("No answer got worse.", "没有变差的回答。"),
        "no_gains": ("No answer got better.", "没有变好的回答。"),
        "reference": ("reference", "参考回答"),
        "empty_answer": ("(empty answer)", "（空回答）"),
        "identity": ("How it was made", "来源与设置"),
        "role_user": ("user", "用户"),
        "role_assistant": ("assistant", "助手"),
        "role_system": ("system", "系统"),
        "role_developer": ("developer", "开发者"),
        "role_tool": ("tool", "工具"),
        "base": ("base model", "基础模型"),
        "model": ("tuned model", "微调模型"),
        "method": ("method", "方法"),
        "dataset_hash": ("data set hash", "数据集哈希"),
        "split_rule": ("split", "划分规则"),
        "seeds": ("seeds", "随机种子"),
        "decoding": ("decoding", "解码参数"),
        "versions": ("versions", "版本"),
        "hardware": ("hardware", "硬件"),
        "command": ("command", "命令"),
        "leak_check": ("leak check", "泄漏检查"),
        "lineage_before": ("lineage, before", "沿袭（训练前）"),
        "lineage_after": ("lineage, after", "沿袭（训练后）"),
        "recipe": ("recipe", "训练配方"),
        "created": ("made at", "生成时间"),
        "gate_open": (
            "The gate is open: {after} may take the place of {before}.",
            "通过：{after} 可以取代 {before}。",
        ),
        "gate_shut": (
            "The gate is shut: {after} may not take the place of {before}.",
            "未通过：{after} 不能取代 {before}。",
        ),
        "gate_kept": (
            "{set}, {code}: {metric} is kept: {delta} {interval}, −{by} allowed",
            "{set}，{code}：{metric} 得以保持：{delta} {interval}，允许 −{by}",
        ),
        "gate_fell": (
            "{set}, {code}: {metric} got worse by more than {by}: {delta} {interval}",
            "{set}，{code}：{metric} 变差超过 {by}：{delta} {interval}",
        ),
        "gate_may_fall": (
            "{set}, {code}: {metric} may be worse by more than {by}: {delta} {interval} with {cases} cases",
            "{set}，{code}：{metric} 可能变差超过 {by}：{cases} 个样例得 {delta} {interval}",
        ),
        "gate_may_fall_needed": (
            "{set}, {code}: {metric} may be worse by more than {by}: {delta} {interval} with "
            "{cases} cases; about {needed} would be needed to rule it out",
            "{set}，{code}：{metric} 可能变差超过 {by}：仅凭 {cases} 个样例（{delta} {interval}）无法排除；"
            "约需 {needed} 个",
        ),
        "gate_gained": (
            "{set}, {code}: {metric} is better by more than {by}: {delta} {interval}",
            "{set}，{code}：{metric} 变好超过 {by}：{delta} {interval}",
        ),
        "gate_gained_not": (
            "{set}, {code}: {metric} is not better by more than {by}: {delta} {interval}",
            "{set}，{code}：{metric} 没有变好超过 {by}：{delta} {interval}",
        ),
        "gate_may_gain": (
            "{set}, {code}: {metric} is not shown to be better by more than {by}: {delta} {interval} "
            "with {cases} cases",
            "{set}，{code}：尚不能证明 {metric} 变好超过 {by}：{cases} 个样例得 {delta} {interval}",
        ),
        "gate_may_gain_needed": (
            "{set}, {code}: {metric} is not shown to be better by more than {by}: {delta} {interval}, cannot "
            "tell with {cases} cases; about {needed} would be needed",
            "{set}，{code}：尚不能证明 {metric} 变好超过 {by}："
            "仅凭 {cases} 个样例（{delta} {interval}）无法判断；约需 {needed} 个",
        ),
        "gate_cost": ("{what} is {found}, within {limit}", "{what} 为 {found}，未超过 {limit}"),
        "gate_costs_more": ("{what} is {found}, more than {limit}", "{what} 为 {found}，超过 {limit}"),
        "gate_cost_unknown": (
            "{what} was not measured: compare the models with speed",
            "{what} 未测量：请在比较时测速",
        ),
        "gate_leak": (
            "{found} % of the test dialogues repeat training dialogues, {limit} % allowed",
            "{found}% 的测试对话与训练对话重复，允许 {limit}%",
        ),
        "gate_leaks": (
            "{found} % of the test dialogues repeat training dialogues, more than {limit} %",
            "{found}% 的测试对话与训练对话重复，超过 {limit}%",
        ),
        "gate_leak_unknown": (
            "whether test dialogues repeat training dialogues is not known",
            "测试对话是否与训练对话重复尚不清楚",
        ),
        "judged": (
            "{judge} prefers the answers after in {wins} cases and those before in {losses}, {ties} are ties "
            "(p {p}).",
            "{judge} 认为之后的回答胜 {wins} 例、负 {losses} 例、平 {ties} 例（p {p}）。",
        ),
        "judge_swayed": (
            "Warning: this judge is weak: {share} % of its preferences changed with the order of answers.",
            "警告：该评判模型较弱：{share}% 的偏好随回答先后而变。",
        ),
        "judge_steady": (
            "{share} % of its preferences changed with the order of answers.",
            "其偏好有 {share}% 随回答先后而变。",
        ),
        "judge_agrees": (
            "The judge agrees with people: kappa {kappa} [{low}, {high}], {raw} % of {cases} cases alike.",
            "评判与人工一致：kappa {kappa} [{low}, {high}]，{cases} 例中 {raw}% 相同。",
        ),
        "judge_weak": (
            "Warning: this judge is weak: kappa with people {kappa} [{low}, {high}], {raw} % of {cases} "
            "cases alike; do not decide by it.",
            "警告：该评判模型较弱：与人工的 kappa 为 {kappa} [{low}, {high}]，{cases} 例中 {raw}% 相同；"
            "不可据此定夺。",
        ),
        "matrix": ("Prompts and models", "提示与模型"),
        "prompt": ("prompt", "提示"),
        "side_model": ("model", "模型"),
        "interval_of": ("95 %", "95% 区间"),
        "prompt_tokens": ("prompt tokens", "提示词元"),
        "standing_best": ("best", "最好"),
        "standing_even": ("not told from the best", "与最好者难分"),
        "standing_behind": ("behind", "落后"),
        "standing_chance": ("not told from chance", "与随机猜测难分"),
        "matrix_chance": (
            "~ not told from blind chance, which has {chance} % right.",
            "~ 与随机猜测（正确率 {chance}%）难分。",
        ),
        "matrix_best": (
            "{side} is best, told from all others with {cases} cases.",
            "{side} 最好：{cases} 个样例足以与其余区分。",
        ),
        "matrix_even": (
            "With {cases} cases these cannot be told from the best of any column: {sides}. Of several take "
            "the cheapest.",
            "以 {cases} 个样例，下列组合在各列均与最好者难分：{sides}。若有多个，取成本最低者。",
        ),
        "matrix_mixed": (
            "None is best everywhere: each is shown to be behind in some column ({cases} cases).",
            "没有处处最好者：各组合都在某一列落后（{cases} 个样例）。",
        ),
        "matrix_blind": (
            "None is told from blind chance ({chance} % right) with {cases} cases: take another model, "
            "tune this one, or ask more cases.",
            "以 {cases} 个样例，没有组合能与随机猜测（正确率 {chance}%）区分：请换模型、微调，或增加样例。",
        ),
        "matrix_marks": (
            "* best of the column   = not told from it   - behind it (paired bootstrap, Holm)",
            "* 该列最好   = 与之难分   - 落后（配对自助法，Holm 校正）",
        ),
        "matrix_how": (
            "The same {cases} cases for all. Each is compared with the best of its column by the paired "
            "bootstrap, corrected for the number of comparisons (Holm 1979).",
            "所有组合使用相同的 {cases} 个样例；每个组合与该列最好者用配对自助法比较，"
            "并按比较次数校正（Holm 1979）。",
        ),
        "ab_better": (
            "{arm} is better than {control}: {delta} {interval}, p {p} with {units} users, "
            "at however many looks.",
            "{arm} 优于 {control}：{delta} {interval}，p {p}，{units} 位用户；无论查看多少次都成立。",
        ),
        "ab_worse": (
            "{arm} is worse than {control}: {delta} {interval}, p {p} with {units} users, "
            "at however many looks.",
            "{arm} 劣于 {control}：{delta} {interval}，p {p}，{units} 位用户；无论查看多少次都成立。",
        ),
        "ab_unclear": (
            "Whether {arm} is better than {control} cannot be told with {units} users: {delta} {interval}; "
            "if it stays at that, with about {needed}.",
            "仅凭 {units} 位用户无法判断 {arm} 是否优于 {control}：{delta} {interval}；"
            "若差距不变，约需 {needed} 位。",
        ),
        "ab_close": (
            "Whether {arm} is better than {control} cannot be told with {units} users: {delta} {interval}.",
            "仅凭 {units} 位用户无法判断 {arm} 是否优于 {control}：{delta} {interval}。",
        ),
        "ab_few": (
            "Too few users to tell {arm} from {control}: {units} have rated, at least {fewest} of each arm "
            "are needed.",
            "用户太少，无法比较 {arm} 与 {control}：已有 {units} 位评分，每组至少需 {fewest} 位。",
        ),
        "not_given": ("not given", "未提供"),
    }
)


def say(key: str, language: ReportLanguage, **values: object) -> str:
    """The message of `key`, filled in."""
    return MESSAGES[key][REPORT_LANGUAGES.index(language)].format(**values)


def named(name: str, language: ReportLanguage) -> str:
    """The name of a metric or slice key as a reader knows it; unknown names stay as they are."""
    text = MESSAGES.get(name, (name, name))[REPORT_LANGUAGES.index(language)]
    return name if "{" in text else text


def language_name(code: str, language: ReportLanguage) -> str:
    """`en` as "English" or "英文"."""
    return named(f"lang_{code}", language) if f"lang_{code}" in MESSAGES else code
