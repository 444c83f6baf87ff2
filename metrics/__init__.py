"""Everything that measures a video."""

if __name__ != "magbench.metrics":  # imported by its folder name: every class would exist twice
    raise ImportError("use 'magbench.metrics', not 'metrics'")

from magbench.registry import Registry

METRICS = Registry(
    "metric",
    {
        "ssim_consecutive@default": "magbench.metrics.ssim_consecutive:SSIMConsecutive",
        "ssim_consecutive@native": "magbench.metrics.ssim_consecutive:SSIMConsecutiveNative",
        "lpips_consecutive@default": "magbench.metrics.lpips_consecutive:LPIPSConsecutive",
        "lpips_consecutive@native": "magbench.metrics.lpips_consecutive:LPIPSConsecutiveNative",
        "lpips_consecutive@mini": "magbench.metrics.mini:LPIPSConsecutiveMini",
        "lpips_consecutive@bf16": "magbench.metrics.lpips_consecutive:LPIPSConsecutiveBF16",
        "subject_consistency@default": "magbench.metrics.subject_consistency:SubjectConsistency",
        "subject_consistency@mini": "magbench.metrics.mini:SubjectConsistencyMini",
        "subject_consistency@bf16": "magbench.metrics.subject_consistency:SubjectConsistencyBF16",
        "subject_consistency@vbench-0.1.5": "magbench.metrics.vbench:SubjectConsistencyVBench",
        "subject_consistency@vbench-long": "magbench.metrics.vbench_long:SubjectConsistencyLong",
        "background_consistency@default": "magbench.metrics.background_consistency:BackgroundConsistency",
        "background_consistency@vbench-0.1.5": "magbench.metrics.vbench:BackgroundConsistencyVBench",
        "background_consistency@vbench-long": "magbench.metrics.vbench_long:BackgroundConsistencyLong",
        "aesthetic@default": "magbench.metrics.aesthetic:Aesthetic",
        "aesthetic@vbench-0.1.5": "magbench.metrics.vbench:AestheticVBench",
        "text_alignment@default": "magbench.metrics.text_alignment:TextAlignment",
        "dynamic_degree@vbench-0.1.5": "magbench.metrics.dynamic_degree:DynamicDegree",
        "subject_identity@mini": "magbench.metrics.mini:SubjectIdentity",
        "prompt_adherence@mini": "magbench.metrics.prompt_adherence:PromptAdherence",
        "retention@default": "magbench.metrics.retention:Retention",
        "retention@mag": "magbench.metrics.retention:RetentionMAG",
        "retention@mini": "magbench.metrics.retention:RetentionMini",
        "self_retention@default": "magbench.metrics.self_retention:SelfRetention",
        "landmark_recall@mini": "magbench.metrics.landmark_recall:LandmarkRecall",
        "appearance_drift@default": "magbench.metrics.appearance_drift:AppearanceDrift",
        "temporal_flickering@default": "magbench.metrics.temporal_flickering:TemporalFlickering",
        "temporal_flickering@vbench-0.1.5": "magbench.metrics.temporal_flickering:TemporalFlickeringVBench",
        "loops@default": "magbench.metrics.loops:Loops",
        "cuts@default": "magbench.metrics.cuts:Cuts",
        "sink_returns@default": "magbench.metrics.sink_returns:SinkReturns",
        "chunk_discontinuity@forcing-kv-ilk": "magbench.metrics.chunk_discontinuity:ChunkDiscontinuity",
        "motion@default": "magbench.metrics.motion:Motion",
        "efficiency@default": "magbench.metrics.efficiency:Efficiency",
    },
    group="magbench.metrics",
)
"""Name of each metric, `metric@profile`, to its class. Nothing is imported until it is looked up."""
