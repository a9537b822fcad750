"""Run apps on OVHcloud AI Deploy: one per launch, or one that starts and stops."""
