"""K answers merged into one: the vote, the mean, and evaluation with them."""

import numpy as np
import pytest
import torch
from core_tools import SIZE, panet, random_episode, shapes

from fsslib import Prediction, Protocol, evaluate
from fsslib.errors import ProtocolError
from fsslib.models.base import FewShotModel
from fsslib.models.shot_by_shot import MEAN, RULES, VOTE, ShotByShot, vote


def masks_of(*rows):
    """Logits (1, 2, 1, pixels) whose arg-max is each row."""
    return [torch.stack([1 - torch.tensor(row), torch.tensor(row)])[None, :, None].float() for row in rows]


def test_half_of_the_most_votes_are_enough():
    answers = masks_of([1, 1, 1, 0, 0], [1, 1, 0, 0, 0], [1, 0, 0, 0, 0], [1, 0, 0, 1, 0])
    # Votes 4 2 1 1 0: the most is 4, so two are enough.
    assert vote(answers).argmax(1).flatten().tolist() == [1, 1, 0, 0, 0]
    # Nobody has more than one vote: one is enough.
    assert vote(masks_of([1, 0, 0], [0, 1, 0], [0, 0, 0])).argmax(1).flatten().tolist() == [1, 1, 0]
    assert not vote(masks_of([0, 0], [0, 0])).argmax(1).any()


def test_several_ways_vote_for_themselves():
    logits = [torch.eye(3)[torch.tensor(row)].T[None, :, None] for row in ([1, 2, 0, 2], [1, 2, 2, 1], [1, 0, 2, 0])]
    assert vote(logits).argmax(1).flatten().tolist() == [1, 2, 2, 0]


@pytest.mark.parametrize("way", [1, 2])
def test_one_shot_is_the_method_itself_and_the_mean_is_a_mean(way):
    model, episode = panet(), random_episode(way=way, shot=3)
    merged = ShotByShot(model, MEAN)
    assert torch.equal(merged(episode.shots(1)).logits, model(episode.shots(1)).logits)
    each = []
    for k in range(3):
        images, masks = episode.support_images[:, :, [k]], episode.support_masks[:, :, [k]]
        single = type(episode)(episode.query_images, None, images, masks, episode.classes)
        each.append(model(single).logits.softmax(1))
    torch.testing.assert_close(merged(episode).logits.exp(), torch.stack(each).mean(0))
    assert merged.losses(episode)["total"] == model.losses(episode)["total"]


def test_the_order_of_the_shots_does_not_matter():
    model, episode = panet(), random_episode(shot=4)
    turned = type(episode)(
        episode.query_images, None, episode.support_images.flip(2), episode.support_masks.flip(2), episode.classes
    )
    for rule in RULES:
        merged = ShotByShot(model, rule)
        torch.testing.assert_close(merged(episode).logits, merged(turned).logits)


def test_evaluation_obeys_the_protocol():
    model, rules = panet(), Protocol(input_size=SIZE, episodes=8)
    own = evaluate(model, shapes("test"), rules, shots=(1, 3), progress=False)
    for rule in RULES:
        found = evaluate(model, shapes("test"), rules.replace(k_merge=rule), shots=(1, 3), progress=False)
        assert found.protocol.k_merge == rule and rule in found.protocol.card()
        assert np.array_equal(found.scores[1].table, own.scores[1].table), "one shot has nothing to merge"
        assert not np.array_equal(found.scores[3].table, own.scores[3].table)
        cached = evaluate(
            model, shapes("test"), rules.replace(k_merge=rule), shots=(3,), cache="memory", progress=False
        )
        assert np.array_equal(found.scores[3].table, cached.scores[3].table)


def test_unknown_rules():
    with pytest.raises(ProtocolError, match=f"'vote': expected one of {VOTE}"):
        ShotByShot(panet(), "vote")
    with pytest.raises(ProtocolError, match=f"expected '{VOTE}': a text that is no rule changes nothing"):
        Protocol(k_merge=VOTE.lower())


def test_merging_equal_answers_changes_nothing_even_if_they_are_certain():
    class Certain(FewShotModel):
        def __init__(self):
            torch.nn.Module.__init__(self)

        def forward(self, episode):
            sign = (episode.query_images[:, :1] > 0).float() * 2 - 1
            return Prediction(torch.cat([-200 * sign, 200 * sign], 1))

        def losses(self, episode):
            return {}

    episode = random_episode(shot=5)
    for rule in RULES:
        logits = ShotByShot(Certain(), rule)(episode).logits
        assert torch.isfinite(logits).all() and torch.equal(logits.argmax(1), Certain()(episode).logits.argmax(1))
    merged = evaluate(Certain(), shapes("test"), Protocol(input_size=SIZE, episodes=4, k_merge=MEAN), shots=(3,))
    assert merged.scores[3].table.sum() > 0, "a method without a backbone can be merged, too"
