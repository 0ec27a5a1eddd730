"""Puzzle over the blocks of a ViT: one latency for depth, width and the number of tokens.

The method is that of ``adaptive.llm_puzzle`` (Bercovich et al., ICML 2025, arXiv:2411.19146): a
library of cheaper sub-blocks, scores of one replacement at a time, measured prices, one allocation.
Here a sub-block's score and price also depend on how many patches an image is given, which a
mixed-resolution ViT may choose; so the problem is solved at several numbers and the best kept.
"""
