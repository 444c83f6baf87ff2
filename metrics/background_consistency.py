"""Whether the whole picture stays itself: similarity of image embeddings over time."""

from magbench.metrics.base import Needs
from magbench.metrics.subject_consistency import SubjectConsistency


class BackgroundConsistency(SubjectConsistency):
    """`subject_consistency` with the image embedding of CLIP ViT-B/32 in the place of DINO, on the same clock.

    The name is VBench's and promises too much: nothing is segmented, the whole frame is embedded. Frames are resized
    with antialias; `background_consistency@vbench-0.1.5` is the published recipe. The levels of the two don't compare.
    """

    name = "background_consistency"
    title = "Similarity of the whole picture over time (CLIP ViT-B/32)"
    needs = Needs(features=("magbench.metrics.clip:vit_b_32",))
    licence = "MIT"
