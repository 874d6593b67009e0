# The goals. Recipes are one or two lines; anything longer stands in scripts/.
.DEFAULT_GOAL := help
.PHONY: help demo test check web bench bench-flink soak torture simulate hdfs

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{ printf "  make %-11s %s\n", $$1, $$2 }' Makefile

demo: ## build everything and show the order screen with moving numbers (ARGS="…" goes to `tidemill demo`)
	@scripts/demo.sh $(ARGS)

test: ## all tests: Rust, page, browser; installs Redis, Chromium and a font when missing
	@scripts/test.sh

check: ## format, lints, documentation, house rules, types of the page
	@scripts/check.sh

web: ## build the page into web/dist
	@scripts/web.sh build

bench: ## the figures, as ratios within one run; keep a run with its machine under benches/runs/
	@scripts/bench.sh

bench-flink: ## the figures beside Apache Flink's, over the same files (ARGS="--rounds 5" goes to benches/flink/compare.py)
	@benches/flink/run.sh $(ARGS)

soak: ## the kill tests for long (MINUTES=60 each, or SEEDS=100)
	@TIDEMILL_SOAK_MINUTES=$(or $(MINUTES),$(TIDEMILL_SOAK_MINUTES)) TIDEMILL_SOAK_SEEDS=$(or $(SEEDS),$(TIDEMILL_SOAK_SEEDS)) scripts/soak.sh

torture: ## random dataflow graphs under random faults, compared with a reference (SEEDS=2000 FIRST=1; TIDEMILL_SEED=7 repeats one)
	@TIDEMILL_SOAK_FIRST=$(or $(FIRST),$(TIDEMILL_SOAK_FIRST)) TIDEMILL_SOAK_SEEDS=$(or $(SEEDS),$(TIDEMILL_SOAK_SEEDS)) scripts/torture.sh

simulate: ## the checkpoint protocol in one thread, lost at any effect (SEEDS=10000; TIDEMILL_SEED=7 tells the story of one)
	@TIDEMILL_SIMULATE_SEEDS=$(or $(SEEDS),$(TIDEMILL_SIMULATE_SEEDS)) scripts/simulate.sh

hdfs: ## checkpoints in a real HDFS, which is fetched by Maven (a build of its own, with the feature `hdfs`)
	@scripts/hdfs.sh test
