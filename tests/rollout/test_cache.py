import pytest
import torch

from sequela.model.config import ModelConfig
from sequela.model.decoder import Decoder
from sequela.rollout.cache import Fork, Prefill


@pytest.mark.parametrize("family", ["qwen2", "qwen3", "llama"])
@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_shared_prefixes_give_the_hidden_states_of_whole_sequences(family, kv_heads):
    config = ModelConfig(
        40, family=family, hidden_size=32, heads=4, kv_heads=kv_heads, head_dim=8, intermediate_size=64
    )
    model = Decoder(config).initialise(0)
    random = torch.Generator().manual_seed(0)
    lengths, n = torch.tensor([9, 4, 6]), 5
    prefix = torch.randint(1, 40, (3, 9), generator=random)
    suffix = torch.randint(1, 40, (3, n, 4), generator=random)
    with torch.inference_mode():
        prefill = Prefill()
        model.hidden(prefix, None, prefill)
        fork = Fork(config, prefill, lengths, n, room=4)
        prompts, rollouts = torch.arange(3), torch.arange(n).expand(3, n)
        for step in range(4):
            if step == 2:  # forget a prompt, and half of the rollouts of the others, in another order
                prompts, rollouts = torch.tensor([0, 2]), torch.tensor([[4, 0], [1, 3]])
                fork.keep(prompts, rollouts)
            width = rollouts.shape[1]
            new = suffix[prompts[:, None], rollouts, step].reshape(-1, 1)
            positions = (lengths[prompts] + step).repeat_interleave(width)[:, None]
            hidden = model.hidden(new, positions, fork)[:, 0]
            fork.advance()
            for row, (p, r) in enumerate(
                (p, r) for p, rs in zip(prompts.tolist(), rollouts.tolist(), strict=True) for r in rs
            ):
                whole = torch.cat([prefix[p, : lengths[p]], suffix[p, r, : step + 1]])[None]
                assert torch.allclose(hidden[row], model.hidden(whole)[0, -1], atol=1e-5)
                wrong = torch.cat([prefix[p - 1, : lengths[p]], suffix[p, r, : step + 1]])[None]
                assert not torch.allclose(
                    hidden[row], model.hidden(wrong)[0, -1], atol=1e-3
                )  # negative control
