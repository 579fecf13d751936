"""Playing whole games with a model: its moves are learned, its partner's replies are only read."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from trainer.datasets import Message
from trainer.environments import Environment, Game
from trainer.errors import TemplateBroken
from trainer.learning.rollouts import Prompt, Rollout, Sampler
from trainer.learning.rows import render
from trainer.rewards import Answer

_PROBE: Final = (Message("user", "a"), Message("assistant", "b"))


@dataclass(frozen=True, slots=True)
class Table:
    """Where the sampler's model meets the environment; ``move`` is what one move may have of tokens."""

    sampler: Sampler
    environment: Environment
    move: int

    def play(self, model: Any, prompts: Sequence[Prompt]) -> list[Rollout]:
        games = [self.environment.start(prompt.case) for prompt in prompts]
        played = play_games(
            self.sampler.tokenizer,
            [prompt.ids for prompt in prompts],
            games,
            lambda prefixes: self.sampler.draw(model, prefixes, room=self.move),
        )
        return [
            Rollout(
                prompt,
                tuple(one.said),
                tuple(one.own),
                Answer(prompt.case, one.text, finished=not one.cut, turns=tuple(one.turns)),
            )
            for prompt, one in zip(prompts, played, strict=True)
        ]


@dataclass(slots=True)
class Played:
    """One game: every token behind its prompt, and which of them the player said."""

    said: list[int] = field(default_factory=list)
    own: list[int] = field(default_factory=list)
    turns: list[Message] = field(default_factory=list)
    cut: bool = False
    """Whether a move was so long that the game ended there."""
    over: bool = False

    @property
    def text(self) -> str:
        """The player's moves, one a line: with the case they are the whole game, since partners are
        deterministic."""
        return "\n".join(" ".join(turn.content.split()) for turn in self.turns if turn.role == "assistant")


def play_games(
    tokenizer: Any,
    prompts: Sequence[Sequence[int]],
    games: Sequence[Game],
    draw: Callable[[list[list[int]]], list[list[int]]],
) -> list[Played]:
    """All games side by side, move by move, each until its partner ends it. ``draw`` gives the tokens behind
    each prefix, up to the end of turn and with it."""
    played = [Played() for _ in prompts]
    replies: dict[str, list[int]] = {}
    while waiting := [place for place, one in enumerate(played) if not one.over]:
        moves = draw([[*prompts[place], *played[place].said] for place in waiting])
        for place, ids in zip(waiting, moves, strict=True):
            one = played[place]
            one.said += ids
            one.own += [1] * len(ids)
            ended = ids[-1:] == [tokenizer.eos_token_id]
            move = str(tokenizer.decode(ids[:-1] if ended else ids, skip_special_tokens=True))
            one.turns.append(Message("assistant", move))
            reply = games[place].reply(move) if ended else None
            if reply is None:
                one.over, one.cut = True, not ended
                continue
            if reply not in replies:
                replies[reply] = reply_tokens(tokenizer, reply)
            one.turns.append(Message("user", reply))
            one.said += replies[reply]
            one.own += [0] * len(replies[reply])
    return played


def reply_tokens(tokenizer: Any, reply: str) -> list[int]:
    """What the template puts between the player's end of turn and its next words. Raises TemplateBroken.

    The player's own tokens are kept as they were drawn: rendered again, they could become others.
    """
    before = list(render(tokenizer, _PROBE))
    end = len(before) - before[::-1].index(tokenizer.eos_token_id)
    whole = list(render(tokenizer, (*_PROBE, Message("user", reply)), add_generation_prompt=True))
    if whole[:end] != before[:end]:
        raise TemplateBroken("the chat template rewrites earlier turns, so a game cannot be continued")
    return whole[end:]
