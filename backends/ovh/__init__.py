"""OVHcloud AI Deploy: one app per launch, or one that is started and stopped."""
