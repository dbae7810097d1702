package reports

import "fmt"

// Language of a report. Sentences of the verdict itself stay as checklist
// wrote them, because verdict.json quotes them.
type Language string

const (
	English Language = "en"
	Chinese Language = "zh-CN"
)

// Say fills a note's phrase. An id that is not in phrases is a mistake in this
// package; a test looks for them, and a reader sees the id.
func (l Language) Say(n Note) string {
	if n.ID == "verbatim" {
		return fmt.Sprint(n.Args...)
	}
	p, known := phrases[n.ID]
	if !known {
		return "⟨" + n.ID + "⟩"
	}
	text := p.en
	if l == Chinese {
		text = p.zh
	}
	if len(n.Args) == 0 {
		return text
	}
	args := make([]any, len(n.Args))
	for i, a := range n.Args {
		args[i] = a
		if inner, ok := a.(Note); ok {
			args[i] = l.Say(inner)
		}
	}
	return fmt.Sprintf(text, args...)
}

func (l Language) say(id string, args ...any) string { return l.Say(Note{id, args}) }

type phrase struct{ en, zh string }

// phrases are every word a report says, English beside Chinese.
var phrases = map[string]phrase{
	"outcome.pass":     {"Pass", "通过"},
	"outcome.fail":     {"Fail", "未通过"},
	"outcome.unproven": {"Unproven", "未证实"},
	"outcome.invalid":  {"Invalid", "无效"},

	"sentence.pass":     {"Every objective was met, with evidence.", "所有目标均已达成，且有证据。"},
	"sentence.fail":     {"At least one objective was missed.", "至少有一个目标未达成。"},
	"sentence.unproven": {"There is not enough evidence to say.", "证据不足，无法下结论。"},
	"sentence.invalid":  {"The run did not do what it was asked to, so its numbers mean nothing.", "本次运行未按要求执行，其数据没有意义。"},

	"page.question":    {"May it launch?", "可以上线吗？"},
	"page.skip":        {"Skip to the objectives", "跳到目标"},
	"page.theme":       {"Theme: %s", "主题：%s"},
	"page.theme.auto":  {"automatic", "自动"},
	"page.theme.light": {"light", "浅色"},
	"page.theme.dark":  {"dark", "深色"},
	"page.sections":    {"Sections", "章节"},
	"page.footer":      {"Written by launchgate %s from the recording alone: “launchgate report” in this folder writes the same bytes again.", "由 launchgate %s 仅根据记录生成：在此目录运行 “launchgate report” 会得到逐字节相同的结果。"},

	"section.objectives":  {"Objectives", "目标"},
	"section.next":        {"What to do next", "下一步"},
	"section.timeline":    {"Timeline", "时间线"},
	"section.faults":      {"Faults", "故障"},
	"section.latency":     {"Latency", "延迟"},
	"section.requests":    {"Requests", "请求"},
	"section.client":      {"Client", "客户端"},
	"section.missing":     {"Not in this report", "本报告缺少的内容"},
	"section.environment": {"Environment", "环境"},
	"section.definitions": {"How each number is defined", "各项数字的定义"},

	"fact.target":        {"Target", "目标服务"},
	"fact.local":         {"bundled service, %s replicas", "自带服务，%s 个副本"},
	"fact.model":         {"Model", "模型"},
	"fact.started":       {"Started", "开始时间"},
	"fact.measured":      {"Measured", "测量时长"},
	"fact.requests":      {"Requests", "请求数"},
	"fact.errors":        {"%s, %s failed", "%s，其中 %s 个失败"},
	"fact.faults":        {"Faults", "故障"},
	"fact.faults.passed": {"%s of %s survived", "%[2]s 个中承受住 %[1]s 个"},
	"fact.none":          {"none", "无"},
	"fact.unknown":       {"unknown", "未知"},

	"interrupted.title":    {"Incomplete: interrupted at %s", "不完整：在 %s 被中断"},
	"interrupted.by":       {"Stopped by: %s.", "停止原因：%s。"},
	"interrupted.cut":      {"The recording ends without saying why, as after a crash.", "记录未说明原因便终止，如同崩溃之后。"},
	"interrupted.unplayed": {"Never played: %s.", "从未执行：%s。"},
	"interrupted.rest":     {"What is below was measured before that, and is not the whole run.", "以下内容均在此之前测得，并非完整运行。"},

	"objective.none":       {"The gate has no objectives, so nothing could be proven.", "该关卡没有目标，因此什么也无法证实。"},
	"objective.unmeasured": {"not measured", "未测得"},
	"objective.samples":    {"%s samples", "%s 个样本"},
	"objective.sample":     {"1 sample", "1 个样本"},
	"objective.spare":      {"%s to spare", "余量 %s"},
	"objective.missed":     {"missed by %s", "差 %s"},
	"objective.exact":      {"met exactly", "正好达成"},
	"objective.whole":      {"whole run", "整个运行"},
	"objective.limit":      {"Limit", "限值"},
	"objective.value":      {"Value", "测得值"},
	"objective.margin":     {"Margin", "余量"},
	"objective.objective":  {"Objective", "目标"},
	"objective.outcome":    {"Verdict", "结论"},
	"objective.bound":      {"99 %% confidence: up to %s", "99%% 置信：可达 %s"},
	"objective.passed":     {"%s more, all passed", "另有 %s 个，全部通过"},

	"next.rerun":          {"Run it again to its end: a run that was cut short decides nothing.", "请完整地重新运行：被中断的运行不能作为结论。"},
	"next.client":         {"Mend the client first, because nothing measured with it can be believed: %s", "请先修复客户端，用它测得的一切都不可信：%s"},
	"next.unproven":       {"%s — %s", "%s — %s"},
	"next.fault":          {"%s — %s", "%s — %s"},
	"next.failed":         {"%s — %s", "%s — %s"},
	"next.worst":          {"%s — look at %s, where %s reached %s at p95: compare streams in flight, queue and replicas ready at that moment.", "%s — 请看 %s，此时%s的 p95 达到 %s：对照该时刻的在途流、队列与就绪副本。"},
	"next.worst.fault":    {"%s — look at %s, where %s reached %s at p95, during %s: compare streams in flight, queue and replicas ready at that moment.", "%s — 请看 %s，此时%s的 p95 达到 %s，正处于 %s 期间：对照该时刻的在途流、队列与就绪副本。"},
	"next.errors":         {"%s — %s of %s failed requests: %s. Their stories are under Requests.", "%s — %[3]s 个失败请求中有 %[2]s 个：%[4]s。经过见“请求”一节。"},
	"next.errors.replica": {"%s — %s of %s failed requests: %s; %s of those were answered by %s. Their stories are under Requests.", "%s — %[3]s 个失败请求中有 %[2]s 个：%[4]s；其中 %[5]s 个由 %[6]s 应答。经过见“请求”一节。"},
	"next.recovery":       {"%s — recovery took %s, of which %s passed before the fault was noticed: shorten the longer part.", "%s — 恢复用时 %s，其中 %s 花在发现故障之前：请缩短较长的部分。"},
	"next.launch":         {"Launch. Keep this folder: it is the evidence, and anyone can judge it again.", "可以上线。请保留此目录：它就是证据，任何人都可以重新评判。"},
	"next.narrowest":      {"Watch %s in production: it passed with the least to spare, %s.", "上线后请关注 %s：它的余量最小，仅 %s。"},
	"next.more":           {"%s more below.", "下面还有 %s 条。"},
	"next.reproduce":      {"Run it again, in this folder", "在此目录中重新运行"},
	"next.original":       {"As it was started", "当时的命令"},
	"next.copy":           {"Copy", "复制"},
	"next.copied":         {"Copied", "已复制"},

	"terminal.report": {"Report", "报告"},

	"timeline.about":  {"One clock for everything, from the start of the run. Each point stands for %s. Requests count where they were due, failures where they were seen; a gap in a line is time in which nothing was measured.", "所有图共用一个时钟，从运行开始计时。每个点代表 %s。请求计在应发时刻，失败计在被发现的时刻；曲线的缺口表示该时段没有测得数据。"},
	"timeline.help":   {"Hover to read every series at one moment, drag to zoom, double-click to see all. With the keyboard: arrows move, + and − zoom, Escape resets.", "悬停可读取同一时刻的所有数据，拖动可放大，双击可复原。键盘：方向键移动，+ 和 − 缩放，Esc 复原。"},
	"timeline.none":   {"No request was due, so there is nothing to draw.", "没有任何到期的请求，因此没有可画的内容。"},
	"timeline.chart":  {"%s over time; its values are in the legend while you move.", "%s随时间变化；移动时图例显示数值。"},
	"timeline.open":   {"end not seen", "未见结束"},
	"timeline.rto":    {"RTO %s", "RTO %s"},
	"timeline.gap":    {"no data", "无数据"},
	"timeline.stages": {"Stages and faults", "阶段与故障"},

	"panel.load":           {"Load", "负载"},
	"panel.load.about":     {"requests per second", "每秒请求数"},
	"panel.ttft":           {"Time to first token", "首 token 时间"},
	"panel.ttft.about":     {"of requests due in that moment", "按请求应发时刻"},
	"panel.icl":            {"Inter-chunk latency", "分块间隔"},
	"panel.icl.about":      {"waits between the chunks of streams", "流中相邻分块之间的等待"},
	"panel.probe":          {"Probe", "探测"},
	"panel.probe.about":    {"share of probes that were not answered in full", "未得到完整应答的探测比例"},
	"panel.replicas":       {"Replicas ready", "就绪副本"},
	"panel.replicas.about": {"as the gateway sees them", "网关所见"},
	"panel.streams":        {"Work in progress", "进行中的工作"},
	"panel.streams.about":  {"requests and streams", "请求与流"},
	"panel.kv":             {"KV cache", "KV 缓存"},
	"panel.kv.about":       {"share in use on the fullest replica", "最满副本的占用比例"},
	"panel.memory":         {"Resident memory", "常驻内存"},
	"panel.memory.about":   {"of all processes watched", "所有被观察的进程"},
	"panel.client":         {"Client CPU", "客户端 CPU"},
	"panel.client.about":   {"of one core", "占单核比例"},

	"series.offered":       {"offered", "应发"},
	"series.sent":          {"sent", "已发"},
	"series.finished":      {"finished", "完成"},
	"series.errors":        {"failed", "失败"},
	"series.p50":           {"p50", "p50"},
	"series.p95":           {"p95", "p95"},
	"series.probes_failed": {"failed probes", "失败的探测"},
	"series.ready":         {"replicas ready", "就绪副本"},
	"series.open":          {"waited for by the client", "客户端等待中"},
	"series.in_flight":     {"streams in flight", "在途流"},
	"series.queue":         {"queued", "排队"},
	"series.kv_max":        {"KV cache in use", "KV 缓存占用"},
	"series.memory":        {"resident memory", "常驻内存"},
	"series.client_cpu":    {"client CPU", "客户端 CPU"},

	"mark.declared":  {"declared", "声明"},
	"mark.injected":  {"injected", "注入"},
	"mark.in_effect": {"in effect", "生效"},
	"mark.reverted":  {"reverted", "撤销"},
	"mark.gone":      {"gone", "消失"},
	"mark.recovered": {"recovered", "恢复"},
	"mark.failed":    {"step failed", "步骤失败"},

	"fault.none":      {"No fault was injected.", "没有注入故障。"},
	"fault.detection": {"Detection", "发现"},
	"fault.rto":       {"RTO", "RTO"},
	"fault.rpo":       {"RPO", "RPO"},
	"fault.lost":      {"Requests lost", "丢失的请求"},
	"fault.unseen":    {"not seen", "未见"},
	"fault.after":     {"+%s", "+%s"},
	"fault.life":      {"Life of the fault", "故障的经过"},

	"latency.about":      {"Response times count from the moment a request was due, so a service that makes callers wait cannot hide it. Failed requests are not in these figures; they are errors.", "响应时间从请求应发时刻起算，让调用方等待的服务无法掩盖。失败的请求不计入这些数字，而计为错误。"},
	"latency.none":       {"No request succeeded, so there is no latency to show.", "没有成功的请求，因此没有延迟可以展示。"},
	"latency.scenario":   {"Scenario", "场景"},
	"latency.stage":      {"Stage", "阶段"},
	"latency.metric":     {"Metric", "指标"},
	"latency.samples":    {"Samples", "样本"},
	"latency.requests":   {"Requests", "请求"},
	"latency.failed":     {"Failed", "失败"},
	"latency.tokens":     {"Output tokens", "输出 token"},
	"latency.goodput":    {"Goodput", "有效吞吐"},
	"latency.max":        {"max", "最大"},
	"latency.by_stage":   {"By stage", "按阶段"},
	"latency.curve":      {"By percentile", "按百分位"},
	"latency.ecdf":       {"Share answered within", "在此时间内完成的比例"},
	"latency.unmeasured": {"—", "—"},
	"latency.sketch":     {"Curves and stage figures come from buckets and are within 0.8 % of the sample they stand for.", "曲线与分阶段数字取自分桶统计，与其代表的样本相差不超过 0.8%。"},

	"metric.ttft":    {"Time to first token", "首 token 时间"},
	"metric.tpot":    {"Time per output token", "每输出 token 时间"},
	"metric.icl":     {"Inter-chunk latency", "分块间隔"},
	"metric.latency": {"Latency to the end", "端到端延迟"},

	"requests.none":        {"No request was recorded.", "没有记录到请求。"},
	"requests.failed":      {"Failed", "失败"},
	"requests.failed.none": {"None of %s failed.", "%s 个请求无一失败。"},
	"requests.some":        {"The first few of each kind.", "每种仅列最早的几个。"},
	"requests.slow_first":  {"Longest to the first token", "首 token 最慢"},
	"requests.slow_end":    {"Longest to the end", "结束最慢"},
	"requests.key":         {"wait to be sent, to the first token, decoding, longest stall", "等待发送、等到首 token、解码、最长停顿"},
	"requests.waited":      {"waiting to be sent", "等待发送"},
	"requests.prefill":     {"to the first token", "等到首 token"},
	"requests.decode":      {"decoding", "解码"},
	"requests.stalled":     {"longest stall", "最长停顿"},
	"requests.broke":       {"failed here", "在此失败"},
	"requests.story":       {"Story", "经过"},

	"story.due":        {"Due at %s.", "应发于 %s。"},
	"story.sent":       {"Sent %s later.", "%s 后发出。"},
	"story.never_sent": {"It was never sent.", "从未发出。"},
	"story.headers":    {"Response headers after %s.", "%s 后收到响应头。"},
	"story.first":      {"First token after %s.", "%s 后得到首 token。"},
	"story.no_token":   {"No token came.", "没有得到任何 token。"},
	"story.chunks":     {"%s chunks, the longest wait between two %s, at +%s.", "共 %s 个分块，最长间隔 %s，出现在 +%s。"},
	"story.tokens":     {"%s output tokens.", "%s 个输出 token。"},
	"story.end":        {"Ended after %s.", "%s 后结束。"},
	"story.no_end":     {"Its end was not recorded.", "没有记录到结束。"},
	"story.status":     {"HTTP status %s.", "HTTP 状态 %s。"},
	"story.finish":     {"Finish reason: %s.", "结束原因：%s。"},
	"story.replica":    {"Answered by %s.", "由 %s 应答。"},
	"story.retries":    {"Retried %s times by the gateway.", "网关重试 %s 次。"},
	"story.fault":      {"During %s.", "处于 %s 期间。"},

	"error.connect":   {"no connection", "无法连接"},
	"error.timeout":   {"given up by the client after its timeout", "客户端超时放弃"},
	"error.status":    {"HTTP status outside 2xx", "HTTP 状态不是 2xx"},
	"error.in_band":   {"an error inside a 2xx stream", "2xx 流中出现错误"},
	"error.truncated": {"the stream broke off before its end", "流在结束前中断"},
	"error.protocol":  {"the answer was not the protocol", "应答不符合协议"},
	"error.empty":     {"finished without a single token", "结束时没有任何 token"},
	"error.not_sent":  {"due and never sent", "到期但从未发出"},
	"error.cancelled": {"in flight when the run was interrupted", "运行中断时仍在途"},
	"error.other":     {"failed in another way", "其他方式失败"},

	"client.valid":      {"The client kept its own schedule, so what it measured is the service.", "客户端跟上了自己的计划，所测即为服务本身。"},
	"client.invalid":    {"The client was itself the bottleneck.", "客户端自身成为了瓶颈。"},
	"client.lag":        {"Send lag", "发送滞后"},
	"client.lag.about":  {"how late requests left, after they were due", "请求在应发之后多久才发出"},
	"client.rate":       {"Rate", "速率"},
	"client.rate.about": {"offered, and how much of it was achieved", "计划速率与实际达成的速率"},
	"client.offered":    {"offered", "计划"},
	"client.achieved":   {"achieved", "达成"},
	"client.gc":         {"GC pause p99", "GC 停顿 p99"},
	"client.sched":      {"Scheduler delay p99", "调度延迟 p99"},
	"client.cpu":        {"CPU, highest", "CPU 最高"},
	"client.unmeasured": {"not measured", "未测得"},

	"missing.none":       {"Nothing is known to be missing.", "没有已知的缺失。"},
	"missing.impossible": {"%s requests have times that cannot be, and were left out.", "%s 个请求的时间不可能成立，已略去。"},
	"missing.scenario":   {"No request of scenario %s was recorded.", "没有记录到场景 %s 的请求。"},
	"missing.panel":      {"%s: nothing was observed, so it is not drawn.", "%s：没有观测数据，因此没有绘制。"},
	"missing.hole":       {"%s: no observation from %s to %s.", "%s：从 %s 到 %s 没有观测数据。"},

	"environment.version":  {"launchgate", "launchgate"},
	"environment.seed":     {"Seed", "随机种子"},
	"environment.url":      {"Address", "地址"},
	"environment.host":     {"Client host", "客户端主机"},
	"environment.cores":    {"%s cores", "%s 核"},
	"environment.memory":   {"Memory", "内存"},
	"environment.go":       {"Go", "Go"},
	"environment.command":  {"Command", "命令"},
	"environment.files":    {"SHA-256 of the recording", "记录的 SHA-256"},
	"environment.unsummed": {"none: the recording was never closed", "无：记录从未正常关闭"},

	"define.due":             {"Due", "应发"},
	"define.due.text":        {"When the schedule wanted the request sent. Response times start here, whether or not the client or the service was ready.", "计划要求发出请求的时刻。无论客户端或服务是否就绪，响应时间都从此处起算。"},
	"define.ttft":            {"TTFT", "TTFT"},
	"define.ttft.text":       {"Time to first token: the first non-empty fragment of text, reasoning or tool call, minus Due. An empty first chunk is not a token.", "首 token 时间：首个非空的文本、推理或工具调用片段的时刻减去应发时刻。空的首个分块不算 token。"},
	"define.tpot":            {"TPOT", "TPOT"},
	"define.tpot.text":       {"Time per output token of one request: from first to last token, divided by the tokens after the first chunk. Undefined for a single token, never zero.", "单个请求每输出 token 的时间：首末 token 之间的时间除以首个分块之后的 token 数。只有一个 token 时无定义，绝不为零。"},
	"define.icl":             {"ICL", "ICL"},
	"define.icl.text":        {"Inter-chunk latency: the raw waits between the content chunks of a stream. A chunk may carry several tokens.", "分块间隔：流中相邻内容分块之间的原始等待。一个分块可能包含多个 token。"},
	"define.success":         {"Success", "成功"},
	"define.success.text":    {"HTTP 2xx, no error inside the stream, a finish reason and [DONE], and at least one token. A stream that breaks in the middle is an error.", "HTTP 2xx，流中没有错误，有结束原因和 [DONE]，且至少一个 token。中途断开的流是错误。"},
	"define.goodput":         {"Goodput", "有效吞吐"},
	"define.goodput.text":    {"Requests per second that met all latency objectives. Errors stay in the denominator.", "每秒满足全部延迟目标的请求数。错误保留在分母中。"},
	"define.percentile":      {"Percentiles", "百分位"},
	"define.percentile.text": {"Nearest rank. A percentile needs samples before it can pass: at 99 % confidence p90 needs 64, p95 130, p99 662 and p99.9 6,636; with fewer it is unproven.", "最近秩法。百分位需要足够样本才能通过：在 99% 置信度下 p90 需 64 个，p95 需 130 个，p99 需 662 个，p99.9 需 6,636 个；不足则为未证实。"},
	"define.rto":             {"RTO", "RTO"},
	"define.rto.text":        {"From the fault seen in effect to the first of several consecutive complete answers, as a client sees it. Detection is a separate number.", "从观察到故障生效，到客户端连续得到若干完整应答中的第一个为止。发现时间另计。"},
	"define.rpo":             {"RPO", "RPO"},
	"define.rpo.text":        {"Age of the oldest acknowledged write that was missing, duplicated or truncated after recovery. Without a final read it is unknown, not zero.", "恢复后缺失、重复或截断的已确认写入中最早一条的时间。没有最终读取则为未知，而非零。"},
	"define.lag":             {"Send lag", "发送滞后"},
	"define.lag.text":        {"Sent minus Due. It belongs to the client: past its bounds the run is invalid, whatever the service did.", "发出时刻减去应发时刻。它属于客户端：超出界限时无论服务表现如何，运行都无效。"},
	"define.outcome":         {"Verdicts", "结论"},
	"define.outcome.text":    {"Pass (exit code 0): met, with enough evidence. Fail (1): missed. Unproven (2): not enough evidence to say. Invalid (3): the run did not do what it was asked, so its numbers mean nothing.", "通过（退出码 0）：达成且证据充分。未通过（1）：未达成。未证实（2）：证据不足。无效（3）：运行未按要求执行，其数据没有意义。"},
}

// definitions are the glossary, in the order it is read.
var definitions = []string{"due", "ttft", "tpot", "icl", "success", "goodput", "percentile", "rto", "rpo", "lag", "outcome"}
