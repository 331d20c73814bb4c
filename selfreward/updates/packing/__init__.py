"""Shared-prefix packing: the rows of a micro-batch as one sequence in which no shared prefix is computed twice.

    layout.py         rows -> one sequence; which token attends to which
    attention.py      attention on that sequence, by one of three kernels: segments.py, varlen.py, flex.py
    forward.py        the adapter between TRL's call of a model and the packed forward pass
    support.py        which models can be packed, and the verification on the model itself
    micro_batches.py  which pairs are computed together, under a budget of tokens
    padded_batch.py   the padded batch that TRL's losses take

Paper: 2410.20305 (prefix sharing for DPO): one prompt, two responses, several pairs in a sequence.
Differs: the shared prefix is the longest common prefix of any rows, so it extends over pairs (several responses to one
prompt, one rubric of many judge prompts) and over responses with the same beginning; `segments` and `varlen` never
compute scores of other rows.
"""
