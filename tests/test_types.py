import numpy as np
import pytest

from leaf_rt.types import Detections, Estimates, Frame, Prediction, Tracks


def F32(shape):  # noqa: N802 - named like the type that it returns
    return np.zeros(shape, np.float32)


def test_errors_name_the_field_and_both_shapes():
    with pytest.raises(ValueError, match=r"Detections\.confidence: wanted float32 \(2\), got float64 \(2,\)"):
        Detections(F32((2, 4)), np.zeros(2), F32((2, 6, 2)), F32((2, 0)))


@pytest.mark.parametrize(
    "make",
    [
        lambda: Frame(np.zeros((4, 4), np.uint8), 0, 0.0, "s"),
        lambda: Frame(np.zeros((4, 4, 3), np.float32), 0, 0.0, "s"),
        lambda: Detections(F32((2, 4)), F32(1), F32((2, 6, 2)), F32((2, 0))),
        lambda: Detections(F32((2, 4)), F32(2), F32((2, 6, 2)), F32((1, 0))),
        lambda: Tracks(np.zeros(1, np.int64), np.zeros((2, 4), np.float32), np.zeros(1, np.int64), np.zeros(1, "f4")),
        lambda: Prediction(np.zeros((2, 8), np.float32), np.zeros((1, 4), np.float32)),
        lambda: Prediction([[1.0]], np.zeros((1, 4), np.float32)),  # type: ignore[arg-type]
    ],
)
def test_wrong_shapes_and_dtypes_raise(make):
    with pytest.raises(ValueError, match="wanted"):
        make()


def test_rows_of_detections_are_selected_in_order():
    xyxy = np.arange(12, dtype=np.float32).reshape(3, 4)
    confidence = np.array([0.1, 0.2, 0.3], np.float32)
    some = Detections(xyxy, confidence, F32((3, 6, 2)), xyxy)[np.array([2, 0])]
    assert some.appearance.tolist() == xyxy[[2, 0]].tolist()
    assert some.confidence.tolist() == pytest.approx([0.3, 0.1])
    assert len(some) == 2


def test_all_fields_of_estimates_need_the_same_number_of_rows():
    with pytest.raises(ValueError, match=r"Estimates\.emotion"):
        Estimates(
            0.0,
            np.zeros(1, np.int64),
            np.zeros((1, 4), np.float32),
            np.zeros(1, np.float32),
            np.zeros((1, 8), np.float32),
            np.zeros((1, 8), np.float32),
            np.zeros(2, np.int64),
            np.zeros(1, np.bool_),
            np.zeros(1, np.bool_),
            np.zeros((0, 4), np.float32),
        )
