"""Labels as tensors."""

import torch

from tubelet.data.dataset import label_rows


def test_a_single_label_is_its_class_index_and_no_label_is_minus_one():
    labels = label_rows([(4,), (), (0,)], None)
    assert labels.dtype == torch.int64
    assert labels.tolist() == [4, -1, 0]


def test_multi_labels_are_a_row_for_each_clip():
    labels = label_rows([(2, 0), (), (1,), (1, 1)], 3)
    assert labels.dtype == torch.bool
    assert labels.int().tolist() == [[1, 0, 1], [0, 0, 0], [0, 1, 0], [0, 1, 0]]


def test_no_clips_have_labels_of_the_same_kind():
    assert label_rows([], None).shape == (0,)
    assert label_rows([], 3).shape == (0, 3)
    assert label_rows([], 3).dtype == torch.bool
