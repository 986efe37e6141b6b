//! Tokens in a safetensors file: `tokens [N, L]` and, from `generate`, `labels [N]`, both i64.

use std::{io::Write, path::Path};

use anyhow::{Context, Result, bail, ensure};
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use tokens::{CodebookIndex, Vocabulary};

fn bytes(values: impl Iterator<Item = i64>) -> Vec<u8> {
    values.flat_map(i64::to_le_bytes).collect()
}

/// Checks, before any work, that tokens can be written to this name.
pub(crate) fn check_name(path: &Path) -> Result<()> {
    let ending = path.extension().unwrap_or_default().to_string_lossy().to_lowercase();
    let name = path.display();
    ensure!(ending == "safetensors", "--out {name}: tokens are written to a .safetensors file");
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        ensure!(parent.is_dir(), "--out {name}: there is no such folder");
    }
    Ok(())
}

/// Writes tokens, and labels where there are some; whole or not at all.
pub(crate) fn write(
    path: &Path,
    tokens: &[Vec<CodebookIndex>],
    labels: Option<&[usize]>,
) -> Result<()> {
    let length = tokens.first().map_or(0, Vec::len);
    let values = bytes(tokens.iter().flatten().map(|&token| i64::from(token)));
    let label_values = labels.map(|labels| bytes(labels.iter().map(|&label| label as i64)));
    let mut tensors = Vec::new();
    if let Some(values) = &label_values {
        tensors.push(("labels", TensorView::new(Dtype::I64, vec![tokens.len()], values)?));
    }
    tensors.push(("tokens", TensorView::new(Dtype::I64, vec![tokens.len(), length], &values)?));
    let content = safetensors::serialize(tensors, None)?;
    files::write_file(path, |file| file.write_all(&content))
        .with_context(|| format!("cannot write {}", path.display()))
}

/// Reads tokens that a model can decode.
pub(crate) fn read(
    path: &Path,
    length: usize,
    vocabulary: Vocabulary,
) -> Result<Vec<Vec<CodebookIndex>>> {
    let name = path.display();
    let content = std::fs::read(path).with_context(|| format!("cannot read {name}"))?;
    let file = SafeTensors::deserialize(&content).map_err(|error| {
        anyhow::anyhow!("{name} is no safetensors file ({error}); `alitok encode` writes one")
    })?;
    let tensor = file
        .tensor("tokens")
        .with_context(|| format!("{name} holds no tensor `tokens`; `alitok encode` writes one"))?;
    let [count, found] = tensor.shape() else {
        bail!("{name}: `tokens` has shape {:?}, expected [N, {length}]", tensor.shape());
    };
    ensure!(
        *found == length,
        "{name}: `tokens` has {found} tokens a picture; this model's pictures have {length}"
    );
    let values: Vec<i64> = match tensor.dtype() {
        Dtype::I64 => tensor
            .data()
            .chunks_exact(8)
            .map(|bytes| i64::from_le_bytes(bytes.try_into().expect("eight bytes")))
            .collect(),
        Dtype::I32 => tensor
            .data()
            .chunks_exact(4)
            .map(|bytes| i32::from_le_bytes(bytes.try_into().expect("four bytes")).into())
            .collect(),
        other => bail!("{name}: `tokens` has type {other:?}, expected I64"),
    };
    let tokens: Vec<CodebookIndex> = values
        .into_iter()
        .map(|value| vocabulary.token(value).with_context(|| format!("cannot decode {name}")))
        .collect::<Result<_>>()?;
    Ok(tokens.chunks(length).take(*count).map(<[_]>::to_vec).collect())
}
