# Loads exports with their owners' own loaders: python accept.py aiperf|guidellm|openmetrics FILE
import sys

tool, path = sys.argv[1:]
if tool == "aiperf":
    from aiperf.common.models.export_models import JsonExportData

    loaded = JsonExportData.model_validate_json(open(path).read())
    print(loaded.time_to_first_token.p95 / 1e3)
elif tool == "guidellm":
    from guidellm.benchmark.schemas.report import GenerativeBenchmarksReport

    loaded = GenerativeBenchmarksReport.load_file(path)
    print(loaded.benchmarks[0].metrics.time_to_first_token_ms.successful.percentiles.p95 / 1e3)
elif tool == "openmetrics":
    from prometheus_client.openmetrics.parser import text_string_to_metric_families

    families = {f.name: f for f in text_string_to_metric_families(open(path).read())}
    print(next(s.value for s in families["launchgate_exit_code"].samples))
