"""Train a small Llama parent from scratch: text to tokens, tokens to a Hugging Face checkpoint.

The stages are plain functions of files (``prepare_tokens``, ``train_parent``, ``export_parent``);
``stages.py`` strings them into the task ``train_parent``.
"""
