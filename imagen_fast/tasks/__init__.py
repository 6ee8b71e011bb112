"""What a user comes for: pretraining, fine-tuning, evaluation, prediction, export.

Each task is a function of one settings object. `tasks.settings` imports no torch, so the command line can
describe every option without it.
"""
