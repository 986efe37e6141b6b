//! Weights of others, and ours under their names.

use std::path::Path;

use files::{TensorMap, safetensors::StorageFormat};
use pipeline::decoder_kind;
use pyo3::{prelude::*, types::PyDict};
use tokenizer::DecoderKind;
use weights::{ImportOptions, WeightsChoice, export, import, released};

use crate::{
    array::Array,
    failure::Failure,
    model::{Model, decoder_named},
};

/// Imports released files as a model folder; the notes say what a person should know.
#[pyfunction]
#[pyo3(signature = (tokenizer, out, generator=None, storage="f32", choice=None))]
fn import_weights(
    py: Python<'_>,
    tokenizer: &str,
    out: &str,
    generator: Option<&str>,
    storage: &str,
    choice: Option<&str>,
) -> Result<Vec<String>, Failure> {
    let format = match storage {
        "f32" => StorageFormat::F32,
        "bf16" => StorageFormat::Bf16,
        _ => {
            return Err(Failure::input(format!(
                "weights are stored in f32 or bf16, not {storage}"
            )));
        }
    };
    let weights = match choice {
        None => None,
        Some("ema") => Some(WeightsChoice::Ema),
        Some("raw") => Some(WeightsChoice::Raw),
        Some(other) => {
            return Err(Failure::input(format!("the weights to take are ema or raw, not {other}")));
        }
    };
    let options = ImportOptions { format, weights };
    py.detach(|| {
        let imported =
            import(Path::new(tokenizer), generator.map(Path::new), Path::new(out), options)?;
        Ok(imported.notes)
    })
}

fn decoder(model: &Model, name: Option<&str>) -> Result<DecoderKind, Failure> {
    Ok(decoder_kind(&model.model.config.tokenizer, decoder_named(name)?)?)
}

/// Writes the tokenizer with one of its decoders, the generator, or both, as the authors' code reads them.
#[pyfunction]
#[pyo3(signature = (model, tokenizer=None, generator=None, decoder=None))]
fn export_weights(
    py: Python<'_>,
    model: &Model,
    tokenizer: Option<&str>,
    generator: Option<&str>,
    decoder: Option<&str>,
) -> Result<(), Failure> {
    let kind = self::decoder(model, decoder)?;
    py.detach(|| {
        if let Some(out) = tokenizer {
            export::export_tokenizer(&model.model, kind, Path::new(out))?;
        }
        if let Some(out) = generator {
            export::export_generator(&model.model, Path::new(out))?;
        }
        Ok(())
    })
}

/// The tensors of a part under the authors' names.
#[pyfunction]
#[pyo3(signature = (model, part, decoder=None))]
fn state_dict<'py>(
    py: Python<'py>,
    model: &Model,
    part: &str,
    decoder: Option<&str>,
) -> Result<Bound<'py, PyDict>, Failure> {
    let kind = self::decoder(model, decoder)?;
    let config = &model.model.config.tokenizer;
    let tensors: TensorMap = py.detach(|| match part {
        "tokenizer" => {
            let tensors = model.model.tokenizer_tensors()?;
            released::export_tokenizer(config, kind, tensors).map_err(Failure::input)
        }
        "generator" if model.model.config.language.is_some() => {
            Err(Failure::input("the authors' code has no names for a language model"))
        }
        "generator" => {
            let tensors = model.model.generator_tensors()?;
            let config = model.model.generator_config()?;
            released::export_generator(config, tensors).map_err(Failure::input)
        }
        _ => {
            Err(Failure::input(format!("the parts are `tokenizer` and `generator`, not `{part}`")))
        }
    })?;
    let dictionary = PyDict::new(py);
    for (name, tensor) in tensors {
        dictionary.set_item(name, Array::f32(tensor.shape, tensor.values))?;
    }
    Ok(dictionary)
}

pub(crate) fn add(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(import_weights, module)?)?;
    module.add_function(wrap_pyfunction!(export_weights, module)?)?;
    module.add_function(wrap_pyfunction!(state_dict, module)?)
}
