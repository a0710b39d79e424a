"""Labels as tensors."""

import torch

from tubelet.data.dataset import label_rows


def test_one_class_a_clip_is_its_number_and_none_is_minus_one():
    labels = label_rows([(4,), (), (0,)], None)
    assert labels.dtype == torch.int64
    assert labels.tolist() == [4, -1, 0]


def test_several_classes_are_a_row_of_what_is_shown():
    labels = label_rows([(2, 0), (), (1,), (1, 1)], 3)
    assert labels.dtype == torch.bool
    assert labels.int().tolist() == [[1, 0, 1], [0, 0, 0], [0, 1, 0], [0, 1, 0]]


def test_no_clips_have_labels_of_the_same_kind():
    assert label_rows([], None).shape == (0,)
    assert label_rows([], 3).shape == (0, 3)
    assert label_rows([], 3).dtype == torch.bool
