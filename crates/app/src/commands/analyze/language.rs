//! `alitok analyze language`, which needs no Burn.

use std::{io::Write, path::PathBuf};

use anyhow::{Context, Result, ensure};
use clap::Args;
use files::write_file;
use pipeline::{Compute, Device, Precision, token_file};
use safetensors::{Dtype, tensor::TensorView};

use crate::{models, progress};

/// What the language model of a model of prompts says of a text: ids and logits
#[derive(Debug, Args)]
#[command(after_help = "Example:
  alitok analyze language --model models/words --text 'the quick brown fox' --out fox.safetensors")]
pub(crate) struct AnalyzeLanguageArgs {
    /// A model folder, or a run.
    #[arg(long, value_name = "MODEL")]
    pub(crate) model: String,
    /// The text. It is read alone, without the form of a prompt; tokens such as <|im_end|> in it are text.
    #[arg(long)]
    pub(crate) text: String,
    /// What to write, a .safetensors: `ids [L]` i64 and `logits [L, V]` f32, after each id those of the
    /// next one.
    #[arg(long)]
    pub(crate) out: PathBuf,
}

pub(crate) fn run(args: &AnalyzeLanguageArgs, device: Option<Device>) -> Result<()> {
    token_file::check_name(&args.out)?;
    let model = models::open(&args.model)?;
    let prompts = model.prompts()?;
    let ids = prompts.tokenizer().encode(&args.text);
    ensure!(!ids.is_empty(), "the text is empty; say something with --text");
    let (count, most) = (ids.len(), prompts.most_ids());
    ensure!(count <= most, "the text has {count} tokens, and this model reads at most {most}");
    let compute = Compute::new(device.unwrap_or_default(), Some(Precision::F32), None)?;
    let logits = compute.language_model(&model, true)?.text_logits(&ids)?;
    let vocabulary = logits.len() / ids.len();
    let loss = mean_loss(&ids, &logits);
    let bytes_of_ids: Vec<u8> = ids.iter().flat_map(|&id| (id as i64).to_le_bytes()).collect();
    let bytes_of_logits: Vec<u8> = logits.iter().flat_map(|logit| logit.to_le_bytes()).collect();
    let shape = vec![count, vocabulary];
    let tensors = [
        ("ids", TensorView::new(Dtype::I64, vec![count], &bytes_of_ids)?),
        ("logits", TensorView::new(Dtype::F32, shape, &bytes_of_logits)?),
    ];
    let bytes = safetensors::serialize(tensors, None)?;
    write_file(&args.out, |file| file.write_all(&bytes))
        .with_context(|| format!("cannot write {}", args.out.display()))?;
    progress::result(&format!("{count} tokens of {vocabulary}"))?;
    if let Some(loss) = loss {
        progress::result(&format!("loss {loss:.4} nats a token, of all but the first"))?;
    }
    progress::closing("logits", &args.out);
    Ok(())
}

/// Mean of −log p of each id after those before it, all but the first.
fn mean_loss(ids: &[usize], logits: &[f32]) -> Option<f64> {
    let vocabulary = logits.len() / ids.len();
    let (rows, next) = (logits.chunks_exact(vocabulary), ids.get(1..)?);
    let losses = rows.zip(next).map(|(row, &id)| {
        let most = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let sum: f64 = row.iter().map(|&logit| f64::from(logit - most).exp()).sum();
        sum.ln() - f64::from(row[id] - most)
    });
    (!next.is_empty()).then(|| losses.sum::<f64>() / next.len() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn should_count_the_loss_of_all_ids_but_the_first() {
        let logits = [0.0, 0.0, 0.0, 1.0, 1.0, 1.0];
        let loss = mean_loss(&[0, 2], &logits).unwrap();
        assert!((loss - 3f64.ln()).abs() < 1e-12);
        assert_eq!(mean_loss(&[1], &logits[..3]), None);
    }
}
