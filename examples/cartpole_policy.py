"""A recurrent policy that balances CartPole without seeing velocities, with 8 of its 64 states left.

PPO trains it; then most of its states are pruned in a plain loop, in which the shrinking policy acts and learns
from what the dense one would have done (DAgger). Needs the package gymnasium:

    python examples/cartpole_policy.py --seeds 5
"""

import argparse
import copy
import json
import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import gymnasium
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import compress

SEEN = (0, 2)  # position and angle; the velocities at 1 and 3 have to be remembered
SCALE = torch.tensor([1.0, 10.0])
REMOVALS = {
    "hard": lambda steps: compress.Hard(),
    "soft": lambda steps: compress.Soft(steps=steps // 2),
    "gradual_soft": lambda steps: compress.GradualSoft(steps=steps // 2, cohort=steps // 10, every=steps // 20),
}


class Policy(nn.Module):
    """Observations [N, T, 2] of whole episodes to logits [N, T, 2] of the two actions."""

    def __init__(self, states: int = 64) -> None:
        super().__init__()
        self.gru = nn.GRU(2, states, batch_first=True)
        self.action = nn.Linear(states, 2)

    def forward(self, observations: Tensor) -> Tensor:
        return self.action(self.gru(observations)[0])

    def step(self, observation: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
        """One step of acting: observation [N, 2] and state [1, N, states] to logits [N, 2] and the next state."""
        states, state = self.gru(observation[:, None], state)
        return self.action(states[:, 0]), state


@dataclass
class Episodes:
    """N episodes of up to T steps, padded after their end."""

    seen: Tensor  # [N, T, 2], what the policy sees
    full: Tensor  # [N, T, 4], with velocities
    actions: Tensor  # [N, T]
    valid: Tensor  # [N, T]
    alive: Tensor  # [N], whether the pole still stands after the last step

    @property
    def returns(self) -> Tensor:
        return self.valid.sum(1).float()


@torch.no_grad()
def play(policy: Policy, count: int, seed: int, *, sample: bool = False, most: int = 500) -> Episodes:
    """Episodes of the policy, which takes its best action or draws one."""
    envs = gymnasium.make_vec("CartPole-v1", num_envs=count, vectorization_mode="vector_entry_point")
    chance = torch.Generator().manual_seed(seed)
    full, state, alive, steps = torch.from_numpy(envs.reset(seed=seed)[0]), None, torch.ones(count).bool(), []
    while alive.any() and len(steps) < most:
        seen = full[:, SEEN] * SCALE
        logits, state = policy.step(seen, state)
        action = logits.softmax(1).multinomial(1, generator=chance)[:, 0] if sample else logits.argmax(1)
        steps.append((seen, full, action, alive))
        observed, _, ended, _, _ = envs.step(action.numpy())
        full, alive = torch.from_numpy(observed), alive & ~torch.from_numpy(ended)
    return Episodes(*(torch.stack(tensors, 1) for tensors in zip(*steps, strict=True)), alive)


def train(seed: int, enough: float = 490.0, most: int = 60) -> Policy:
    """PPO until the mean return of 50 episodes is `enough`, with a critic that sees the velocities."""
    torch.manual_seed(seed)
    policy, critic = Policy(), nn.Sequential(nn.Linear(4, 64), nn.Tanh(), nn.Linear(64, 1))
    optimizer = torch.optim.Adam([*policy.parameters(), *critic.parameters()], lr=3e-3)
    for update in range(most):
        found = play(policy, 32, 1000 * seed + update, sample=True)
        with torch.no_grad():
            values, before = 10 * critic(found.full)[..., 0], chosen(policy(found.seen), found.actions)
            advantages = advantages_of(found, values)
            targets, kept = advantages + values, advantages[found.valid]
            advantages = (advantages - kept.mean()) / (kept.std() + 1e-6)
        for _ in range(6):
            logits = policy(found.seen)
            ratio = (chosen(logits, found.actions) - before).exp()
            gain = torch.min(ratio * advantages, ratio.clamp(0.8, 1.2) * advantages)
            entropy = torch.distributions.Categorical(logits=logits).entropy()
            error = (critic(found.full)[..., 0] - targets / 10).square()
            (0.5 * error - gain - 0.01 * entropy)[found.valid].mean().backward()
            nn.utils.clip_grad_norm_([*policy.parameters(), *critic.parameters()], 0.5)
            optimizer.step()
            optimizer.zero_grad()
        if found.returns.mean() > 0.75 * enough and play(policy, 50, 7).returns.mean() >= enough:
            break
    return policy


def chosen(logits: Tensor, actions: Tensor) -> Tensor:
    """The log-probabilities [N, T] of the actions taken."""
    return logits.log_softmax(2).gather(2, actions[..., None])[..., 0]


def advantages_of(found: Episodes, values: Tensor, discount: float = 0.99, trace: float = 0.95) -> Tensor:
    """Generalised advantages [N, T] (Schulman, 2016) of a reward of 1 for each step."""
    advantages, ahead, value = torch.zeros_like(values), torch.zeros(len(values)), values[:, -1] * found.alive
    for step in reversed(range(values.shape[1])):
        ahead = 1 + discount * value - values[:, step] + discount * trace * ahead
        ahead = ahead * found.valid[:, step]
        advantages[:, step], value = ahead, values[:, step] * found.valid[:, step]
    return advantages


def prune(dense: Policy, keep: int, removal: str, seed: int, rounds: int = 10, updates: int = 20) -> Policy:
    """The policy with `keep` states: it acts, and learns the dense one's actions where it got to."""
    torch.manual_seed(seed)
    policy, steps = copy.deepcopy(dense), rounds * updates
    optimizer = torch.optim.Adam(policy.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    seen = observations(dense, 500 + seed)

    def loss(logits: Tensor, taught: Tensor) -> Tensor:
        return F.cross_entropy(logits.flatten(0, 1), taught.flatten(0, 1))

    def batch() -> tuple[Tensor, Tensor]:
        rows = seen[torch.randint(len(seen), (16,))]
        with torch.no_grad():
            return rows, dense(rows).softmax(2)

    pruner = compress.Pruner(
        policy,
        compress.nodes("gru"),
        sparsity=1 - keep / dense.gru.hidden_size,
        criterion="taylor_square",
        batches=[batch() for _ in range(4)],
        loss=loss,
        example=seen[:2],
        removal=REMOVALS[removal](steps),
    )
    for each in range(rounds):
        for _ in range(updates):
            rows, taught = batch()
            loss(policy(rows), taught).backward()
            optimizer.step()
            optimizer.zero_grad()
            schedule.step()
            pruner.step()  # the chosen states are now one step closer to zero
        seen = torch.cat([seen, observations(policy, 600 + 100 * seed + each)])
    pruner.finalize()
    return compress.slim(policy.eval(), seen[:2])  # raises unless it computes the same


def observations(policy: Policy, seed: int, steps: int = 200) -> Tensor:
    """What the policy sees in the first steps of 32 episodes, [32, steps, 2]; zeros after their end."""
    seen = play(policy, 32, seed, most=steps).seen
    return F.pad(seen, (0, 0, 0, steps - seen.shape[1]))


def run(seed: int, keep: int, removals: list[str], most: int, rounds: int) -> dict[str, float]:
    """Mean returns of 100 episodes: of a dense policy, and of what each removal leaves of it."""
    torch.set_num_threads(1)
    started = time.process_time()
    dense = train(seed, most=most)
    found = {"seed": seed, "seconds": round(time.process_time() - started, 1)}
    found["dense"] = play(dense, 100, 99).returns.mean().item()
    print(
        f"seed {seed}: dense, {size(dense)}: {found['dense']:.1f} of 500, trained in {found['seconds']:.0f} s",
        flush=True,
    )
    for removal in removals:
        small = prune(dense, keep, removal, seed, rounds)
        found[removal] = play(small, 100, 99).returns.mean().item()
        print(f"seed {seed}: {removal}, {size(small)}: {found[removal]:.1f} of 500", flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=1, help="how many policies are trained")
    parser.add_argument("--workers", type=int, default=1, help="how many are trained at once")
    parser.add_argument("--keep", type=int, default=8, help="states that are kept")
    parser.add_argument("--removal", nargs="+", choices=REMOVALS, default=["gradual_soft"])
    parser.add_argument("--updates", type=int, default=60, help="of PPO, at most")
    parser.add_argument("--rounds", type=int, default=10, help="of playing and learning while states are removed")
    parser.add_argument("--out", type=Path, help="a JSON file for the results")
    arguments = parser.parse_args()
    job = partial(run, keep=arguments.keep, removals=arguments.removal, most=arguments.updates, rounds=arguments.rounds)
    if arguments.workers == 1:
        runs = list(map(job, range(arguments.seeds)))
    else:
        with ProcessPoolExecutor(arguments.workers) as pool:
            runs = list(pool.map(job, range(arguments.seeds)))
    for name in ("dense", *arguments.removal):
        found = [each[name] for each in runs]
        print(f"{name}: {statistics.mean(found):.1f} of 500 on average, from {min(found):.1f} to {max(found):.1f}")
    if arguments.out:
        document = {"keep": arguments.keep, "episodes": 100, "runs": runs}
        arguments.out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def size(policy: Policy) -> str:
    return f"{policy.gru.hidden_size} states, {sum(each.numel() for each in policy.parameters()):,} parameters"


if __name__ == "__main__":
    main()
