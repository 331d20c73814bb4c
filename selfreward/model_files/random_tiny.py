"""`random:tiny`: a two-layer Llama-style model with random weights and a byte tokenizer, made here, no download.

For tests, for trying a recipe, for the first job on a cluster. It has learned no language, but its responses look like
words of lower-case letters and end after about 30 tokens, so that a loop can process them: the first hidden channel is
nearly constant, and the output layer turns it into a bias. The weights are the same on every call.
"""

from pathlib import Path
from typing import Any

from selfreward.model_files.quiet import quiet_transformers

SEED = 20240118
HIDDEN, INTERMEDIATE, NUM_LAYERS, NUM_HEADS, NUM_KV_HEADS = 64, 128, 2, 2, 1
CONTEXT_TOKENS = 8192
PAD, START, END = "<|pad|>", "<|start|>", "<|end|>"

CHAT_TEMPLATE = (
    "{% for message in messages %}<|start|>{{ message['role'] }}\n{{ message['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
)

# Probability of each kind of token at temperature 1, apart from the random part of the logits.
END_SHARE, SPACE_SHARE, LETTER_SHARE, OTHER_PRINTABLE_SHARE, OTHER_BYTE_SHARE = 0.04, 0.13, 0.65, 0.15, 0.03


def write_random_tiny(folder: Path) -> None:
    """Write config, safetensors (float32) and tokenizer with chat template into the empty `folder`."""
    tokenizer = _byte_tokenizer()
    tokenizer.save_pretrained(folder)
    with quiet_transformers(on_a_terminal_too=True):
        _model(tokenizer).save_pretrained(folder)


def _byte_tokenizer() -> Any:
    """Return the tokenizer: token i < 256 is byte i, then 3 special tokens. Any text round-trips; any ids decode."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocab = {symbol: byte for byte, symbol in enumerate(_byte_symbols())}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=END,
        additional_special_tokens=[START],
        model_max_length=CONTEXT_TOKENS,
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast


def _byte_symbols() -> list[str]:
    """Return the ByteLevel alphabet's character for each byte: itself when visible, else one from U+0100 on."""
    visible = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    symbols, num_hidden = [], 0
    for byte in range(256):
        if byte in visible:
            symbols.append(chr(byte))
        else:
            symbols.append(chr(0x100 + num_hidden))
            num_hidden += 1
    return symbols


def _model(tokenizer: Any) -> Any:
    import torch
    from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=HIDDEN,
        intermediate_size=INTERMEDIATE,
        num_hidden_layers=NUM_LAYERS,
        num_attention_heads=NUM_HEADS,
        num_key_value_heads=NUM_KV_HEADS,
        max_position_embeddings=CONTEXT_TOKENS,
        tie_word_embeddings=False,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        dtype="float32",
    )
    model = LlamaForCausalLM(config)
    generator = torch.Generator().manual_seed(SEED)
    with torch.no_grad():
        for name, weight in sorted(model.named_parameters()):
            if weight.dim() == 2:
                scale = 0.25 if "embed_tokens" in name else 0.1 if "lm_head" in name else 0.08
                weight.copy_(torch.randn(weight.shape, generator=generator) * scale)
        model.model.embed_tokens.weight[:, 0] = 1.0
        # Layers may not write to channel 0, so that it stays 1 before the last norm.
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight[0] = 0.0
            layer.mlp.down_proj.weight[0] = 0.0
        # After the norm channel 0 is 1 / rms(hidden), and rms(hidden) was measured as 0.47.
        model.lm_head.weight[:, 0] = _log_shares(tokenizer) * 0.47
    model.generation_config = GenerationConfig(
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id, do_sample=True
    )
    return model


def _log_shares(tokenizer: Any) -> Any:
    import torch

    letters = list(range(ord("a"), ord("z") + 1))
    others = [byte for byte in [*range(0x21, 0x7F), 0x0A] if byte not in letters]
    shares = torch.full((len(tokenizer),), OTHER_BYTE_SHARE / (256 - len(letters) - len(others) - 1))
    shares[letters] = LETTER_SHARE / len(letters)
    shares[others] = OTHER_PRINTABLE_SHARE / len(others)
    shares[0x20] = SPACE_SHARE
    shares[tokenizer.eos_token_id] = END_SHARE
    # The model should never write these.
    shares[[tokenizer.pad_token_id, tokenizer.convert_tokens_to_ids(START)]] = 1e-7
    return shares.log()
