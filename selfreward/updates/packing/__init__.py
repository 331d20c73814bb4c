"""Shared-prefix packing: the rows of a micro-batch as one sequence in which no token is computed twice.

    layout.py         rows -> one sequence; which token sees which
    attention.py      attention on that sequence: SDPA on the CPU, FlexAttention on CUDA
    forward.py        the seam: TRL's call goes in, TRL's output comes out
    support.py        which models may be packed, and the proof on the model itself
    micro_batches.py  which pairs are computed together, under a budget of tokens

Paper: 2410.20305 (prefix sharing for DPO): one prompt, two responses, several pairs in a sequence.
Differs: the shared prefix is the longest common one of any rows, so it spans pairs (several responses to one prompt,
one rubric of many judge prompts) and responses that begin alike; on a CPU no masked score is computed.
"""
