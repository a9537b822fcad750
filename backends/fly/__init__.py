"""Run one small machine of one app on Fly, with its models on a volume."""
