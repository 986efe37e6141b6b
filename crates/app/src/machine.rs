//! The facts of this build and this machine.

use std::fs;

use anyhow::Result;

/// Cargo features of the program, and whether they were on.
const FEATURES: [(&str, bool); 8] = [
    ("reference", cfg!(feature = "reference")),
    ("gpu", cfg!(feature = "gpu")),
    ("mpi", cfg!(feature = "mpi")),
    ("reference-cuda", cfg!(feature = "reference-cuda")),
    ("reference-metal", cfg!(feature = "reference-metal")),
    ("reference-rocm", cfg!(feature = "reference-rocm")),
    ("reference-vulkan", cfg!(feature = "reference-vulkan")),
    ("reference-wgpu", cfg!(feature = "reference-wgpu")),
];

/// What a bug report needs, a line each.
pub(crate) fn report() -> Result<String> {
    let features: Vec<&str> =
        FEATURES.into_iter().filter_map(|(name, on)| on.then_some(name)).collect();
    let lines = [
        format!("alitok      {}", env!("CARGO_PKG_VERSION")),
        format!("revision    {}", option_env!("ALITOK_REVISION").unwrap_or("unknown")),
        format!("compiler    {}", env!("ALITOK_RUSTC")),
        format!("target      {}", env!("ALITOK_TARGET")),
        format!("features    {}", features.join(", ")),
        format!("processor   {}", processor()),
        format!("supports    {}", instruction_sets().join(", ")),
        format!("kernels     {}", engine::instruction_set()?),
        format!("memory      {}", memory()),
        format!("threads     {}", crate::tuning::threads()),
    ];
    Ok(lines.join("\n"))
}

/// The processor's name, or at least its architecture.
pub(crate) fn processor() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = text.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    name.map_or_else(|| std::env::consts::ARCH.to_owned(), |(_, name)| name.trim().to_owned())
}

/// Instruction sets of the processor that matter here.
fn instruction_sets() -> Vec<&'static str> {
    #[cfg(target_arch = "x86_64")]
    let known = [
        ("avx2", is_x86_feature_detected!("avx2")),
        ("fma", is_x86_feature_detected!("fma")),
        ("f16c", is_x86_feature_detected!("f16c")),
        ("avxvnni", is_x86_feature_detected!("avxvnni")),
        ("avx512f", is_x86_feature_detected!("avx512f")),
        ("avx512bw", is_x86_feature_detected!("avx512bw")),
        ("avx512vl", is_x86_feature_detected!("avx512vl")),
        ("avx512vnni", is_x86_feature_detected!("avx512vnni")),
        ("avx512bf16", is_x86_feature_detected!("avx512bf16")),
    ];
    #[cfg(target_arch = "aarch64")]
    let known = [
        ("neon", std::arch::is_aarch64_feature_detected!("neon")),
        ("dotprod", std::arch::is_aarch64_feature_detected!("dotprod")),
        ("i8mm", std::arch::is_aarch64_feature_detected!("i8mm")),
        ("bf16", std::arch::is_aarch64_feature_detected!("bf16")),
    ];
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let known: [(&str, bool); 0] = [];
    known.into_iter().filter_map(|(name, has)| has.then_some(name)).collect()
}

/// The machine's memory, and the container's limit where it is lower.
pub(crate) fn memory() -> String {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total = text.lines().find_map(|line| {
        let kilobytes = line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB")?;
        kilobytes.trim().parse::<u64>().ok().map(|kilobytes| 1024 * kilobytes)
    });
    let limit = fs::read_to_string("/sys/fs/cgroup/memory.max")
        .ok()
        .and_then(|text| text.trim().parse::<u64>().ok());
    let gibibytes = |bytes: u64| format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30));
    match (total, limit) {
        (None, _) => "unknown".to_owned(),
        (Some(total), Some(limit)) if limit < total => {
            format!("{}, of which this container may use {}", gibibytes(total), gibibytes(limit))
        }
        (Some(total), _) => gibibytes(total),
    }
}
