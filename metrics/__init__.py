"""Everything that measures a video."""

if __name__ != "magbench.metrics":  # imported by its folder name: every class would exist twice
    raise ImportError("use 'magbench.metrics', not 'metrics'")

from magbench.registry import Registry

METRICS = Registry(
    "metric",
    {
        "ssim_consecutive@default": "magbench.metrics.ssim_consecutive:SSIMConsecutive",
        "lpips_consecutive@default": "magbench.metrics.lpips_consecutive:LPIPSConsecutive",
        "lpips_consecutive@mini": "magbench.metrics.mini:LPIPSConsecutiveMini",
        "subject_consistency@default": "magbench.metrics.subject_consistency:SubjectConsistency",
        "subject_consistency@mini": "magbench.metrics.mini:SubjectConsistencyMini",
        "subject_identity@mini": "magbench.metrics.mini:SubjectIdentity",
        "prompt_adherence@mini": "magbench.metrics.prompt_adherence:PromptAdherence",
        "retention@default": "magbench.metrics.retention:Retention",
        "retention@mag": "magbench.metrics.retention:RetentionMAG",
        "retention@mini": "magbench.metrics.retention:RetentionMini",
        "self_retention@default": "magbench.metrics.self_retention:SelfRetention",
        "landmark_recall@mini": "magbench.metrics.landmark_recall:LandmarkRecall",
        "appearance_drift@default": "magbench.metrics.appearance_drift:AppearanceDrift",
        "motion@default": "magbench.metrics.motion:Motion",
        "efficiency@default": "magbench.metrics.efficiency:Efficiency",
    },
    group="magbench.metrics",
)
"""Name of each metric, `metric@profile`, to its class. Nothing is imported until it is looked up."""
