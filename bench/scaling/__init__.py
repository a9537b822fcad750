"""Play the law of `ollama_proxy.core.pool_plan` on real arrivals, beside its rivals."""
