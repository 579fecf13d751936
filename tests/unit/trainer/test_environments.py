"""Twenty questions: the rules, and a game that a model really plays."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.support.drawn import learn
from trainer.datasets import Case, Message
from trainer.environments import ENVIRONMENTS
from trainer.environments.twenty_questions import LIMIT, THINGS, TwentyQuestionsGame, replay
from trainer.errors import DataInvalid, TemplateBroken
from trainer.learning.base import load_tokenizer
from trainer.learning.games import play_games, reply_tokens
from trainer.learning.rows import render
from trainer.recipes.methods import GrpoSettings
from trainer.recipes.sources import RewardSettings
from trainer.recipes.training import Sampling
from trainer.rewards import Answer, Resources, build, score

SECRET = "EUR transfer"


def game_case(secret: Any = SECRET, environment: str = "twenty_questions") -> Case:
    return Case(
        "game-1",
        (Message("user", "Twenty questions."),),
        1,
        columns={"environment": environment, "secret": secret},
    )


def test_questions_are_answered_by_the_rules() -> None:
    game = TwentyQuestionsGame(SECRET)
    asked = {
        "USD?": "no, left: EUR, GBP, CHF",
        "urgent?": "maybe, left: EUR, GBP, CHF",
        "EUR?": "yes, EUR, left: transfer, invoice, budget, ledger",
        "EUR? USD?": "maybe, EUR, left: transfer, invoice, budget, ledger",
        "invoice?": "no, EUR, left: transfer, budget, ledger",
        "EUR invoice.": "no, EUR, left: transfer, budget, ledger",
        "transfer?": "yes, EUR transfer",
        "": "maybe, EUR transfer",
    }
    assert {move: game.reply(move) for move in asked} == asked
    assert game.reply("EUR transfer.") is None
    assert (game.solved, game.questions) == (True, 8)
    assert game.efficiency == pytest.approx(0.6)


def test_after_twenty_questions_it_is_over() -> None:
    game = TwentyQuestionsGame(SECRET)
    replies = [game.reply("USD?") for _ in range(LIMIT)]
    assert replies == ["no, left: EUR, GBP, CHF"] * (LIMIT - 1) + [None]
    assert game.reply("EUR transfer.") is None
    assert (game.solved, game.efficiency) == (False, 0.0)


def test_moves_alone_are_the_whole_game() -> None:
    moves = "EUR?\ntransfer?\nEUR transfer."
    assert replay(game_case(), moves).efficiency == pytest.approx(0.9)
    assert replay(game_case("EUR invoice"), moves).efficiency == 0.0
    endless = "\n".join(["EUR?"] * 1000)
    assert replay(game_case(), endless).questions == LIMIT


@pytest.mark.parametrize(
    ("measure", "expected"), [("efficiency", 0.95), ("success", 1.0), ("questions", 1.0)]
)
def test_the_verifier_replays_the_game(measure: str, expected: float) -> None:
    settings = RewardSettings(verifier="twenty_questions", settings={"measure": measure})
    rewards = build([(settings, Resources())])
    moves = "EUR?\nEUR transfer."
    other = Case("x", (Message("user", "hi"),), 2)
    found = score(rewards, [Answer(game_case(), moves), Answer(other, moves)])
    assert found[0].scores["twenty_questions"] == pytest.approx(expected)
    assert found[1].scores["twenty_questions"] is None


def test_rows_that_are_no_games_are_named() -> None:
    rows = [game_case(), game_case("a large elephant"), game_case(environment="chess"), game_case(None)]
    with pytest.raises(DataInvalid) as caught:
        ENVIRONMENTS["twenty_questions"].check(rows, "games.jsonl")
    assert len(caught.value.faults) == 3


@pytest.fixture(scope="module")
def tokenizer(base_folder: Path) -> Any:
    return load_tokenizer(base_folder)


def test_a_played_game_is_what_the_template_renders(tokenizer: Any) -> None:
    """Prompt, moves and replies, token by token, as serving would have fed them. Only moves are learned."""
    moves = ["EUR?", "transfer?", "EUR transfer."]
    prompt = render(tokenizer, game_case().prompt, add_generation_prompt=True)
    end = tokenizer.eos_token_id

    def draw(prefixes: list[list[int]]) -> list[list[int]]:
        said = sum(turn == end for turn in prefixes[0][len(prompt) :]) // 2
        ids = tokenizer(moves[said], add_special_tokens=False)["input_ids"]
        return [[*ids, end] for _ in prefixes]

    played = play_games(tokenizer, [prompt], [TwentyQuestionsGame(SECRET)], draw)[0]
    conversation = [
        *game_case().prompt,
        Message("assistant", moves[0]), Message("user", "yes, EUR, left: transfer, invoice, budget, ledger"),
        Message("assistant", moves[1]), Message("user", "yes, EUR transfer"),
        Message("assistant", moves[2]),
    ]  # fmt: skip
    whole = render(tokenizer, conversation)
    assert tuple(prompt) + tuple(played.said) == whole[: len(prompt) + len(played.said)]
    own = [token for token, mine in zip(played.said, played.own, strict=True) if mine]
    assert tokenizer.decode(own) == "<|im_end|>".join([*moves, ""])
    assert played.text == "\n".join(moves)
    assert not played.cut


def test_a_move_without_an_end_is_the_last(tokenizer: Any) -> None:
    played = play_games(
        tokenizer, [[5, 6]], [TwentyQuestionsGame(SECRET)], lambda prefixes: [[7, 8] for _ in prefixes]
    )[0]
    assert (played.said, played.cut) == ([7, 8], True)


def test_a_template_that_rewrites_earlier_turns_is_refused(base_folder: Path) -> None:
    broken = load_tokenizer(base_folder)
    broken.chat_template = "{% for m in messages %}{{ loop.length }}{{ m.content }}<|im_end|>{% endfor %}"
    with pytest.raises(TemplateBroken, match="rewrites earlier turns"):
        reply_tokens(broken, "yes")


def test_every_thing_is_one_of_its_kind() -> None:
    assert len(THINGS) == len(set(THINGS)) == 16


# Learning from games


def test_replies_are_read_but_not_learned(
    base_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model of noise never ends a move by itself: here its every third token does."""
    from trainer.learning.rollouts import Sampler

    original = Sampler.draw

    def ending(sampler: Any, model: Any, prompts: Any, *, room: int | None = None) -> list[list[int]]:
        drawn = original(sampler, model, prompts, room=2)
        return [[*ids[:2], sampler.tokenizer.eos_token_id] for ids in drawn]

    seen: list[Any] = []

    def watched(drawn: Any) -> Any:
        masks = [list(one.rollout.own) for one in drawn.newest]
        seen.append((masks, [one.rollout.length for one in drawn.newest]))
        return masks

    monkeypatch.setattr(Sampler, "draw", ending)
    monkeypatch.setattr("trainer.learning.drawing.Drawn.own", watched)
    rewards = build(
        [(RewardSettings(verifier="twenty_questions", settings={"measure": "questions"}), Resources())]
    )
    settings = GrpoSettings(
        environment="twenty_questions", steps=1, batch_size=4, group_size=2, max_length=1600,
        sampling=Sampling(max_new_tokens=8),
    )  # fmt: skip
    rows = (game_case(), replace(game_case("USD invoice"), line=2))
    learning = learn(settings, base_folder, tmp_path, rows=rows, rewards=rewards)
    masks, lengths = seen[0]
    assert all(mask[:3] == [1, 1, 1] and 0 in mask for mask in masks)
    assert lengths == [3 * LIMIT] * 4  # twenty moves of three tokens, whatever the partner said
    assert learning.steps[0]["length"] == 3 * LIMIT
    assert learning.steps[0]["reward"] == LIMIT


def test_rows_without_a_secret_never_reach_a_step(base_folder: Path, tmp_path: Path) -> None:
    settings = GrpoSettings(
        environment="twenty_questions", steps=1, batch_size=4, group_size=2, max_length=1600
    )
    with pytest.raises(DataInvalid, match=r"questions\.jsonl:1: columns\.secret"):
        learn(settings, base_folder, tmp_path)
