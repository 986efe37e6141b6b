//! Compares with what `benches/peers/metrics_agreement.py` wrote of the originals:
//! `cargo run --release -p alitok-metrics --example agreement FILE`. Prints a table of differences, each
//! relative to the largest number of its kind.

#![allow(clippy::print_stdout)] // a table is what it is for

use std::{collections::BTreeMap, error::Error};

use burn::tensor::{Device, Tensor, TensorData};
use files::{HostTensor, TensorMap};
use metrics::{
    FeatureMatrix, Gaussian, KernelSubsets, Moments, ScoreSplits, frechet_distance,
    inception_score, kernel_distance,
    networks::{ChainConfig, ConvNextConfig, InceptionConfig},
    perceptual::{Lpips, PerceptualDistance},
    precision_recall,
};
use safetensors::SafeTensors;

type Failure = Box<dyn Error>;

struct File(TensorMap);

impl File {
    fn tensor<const D: usize>(&self, name: &str) -> Result<Tensor<D>, Failure> {
        let tensor = self.0.get(name).ok_or_else(|| format!("the file has no {name}"))?.clone();
        let data = TensorData::new(tensor.values, tensor.shape);
        Ok(Tensor::from_data(data, &Device::flex()))
    }

    fn below(&self, prefix: &str) -> TensorMap {
        let named = self.0.iter().filter_map(|(name, tensor)| {
            name.strip_prefix(prefix).map(|name| (name.to_owned(), tensor.clone()))
        });
        named.collect::<BTreeMap<_, _>>()
    }

    fn rows(&self, name: &str) -> Result<FeatureMatrix, Failure> {
        let tensor = self.0.get(name).ok_or_else(|| format!("the file has no {name}"))?;
        Ok(FeatureMatrix::new(tensor.shape[1], tensor.values.clone())?)
    }

    fn value(&self, name: &str) -> Result<f64, Failure> {
        let name = format!("values.{name}");
        let tensor = self.0.get(&name).ok_or_else(|| format!("the file has no {name}"))?;
        Ok(tensor.values.iter().map(|&part| f64::from(part)).sum())
    }

    fn compare<const D: usize>(&self, name: &str, got: Tensor<D>) -> Result<(), Failure> {
        let expected = self.tensor::<D>(name)?;
        let largest = expected.clone().abs().max().into_scalar::<f32>();
        let difference = (got - expected).abs().max().into_scalar::<f32>();
        println!("| {name} | {:.1e} |", difference / largest);
        Ok(())
    }

    fn compare_value(&self, name: &str, got: f64) -> Result<(), Failure> {
        let expected = self.value(name)?;
        let relative = ((got - expected) / expected).abs();
        println!("| {name} | {relative:.1e} | {got:.9} | {expected:.9} |");
        Ok(())
    }
}

fn main() -> Result<(), Failure> {
    let path = std::env::args().nth(1).ok_or("name the file of metrics_agreement.py")?;
    let bytes = std::fs::read(path)?;
    let tensors = SafeTensors::deserialize(&bytes)?;
    let mut file = File(TensorMap::new());
    for (name, view) in tensors.iter() {
        let (numbers, _) = view.data().as_chunks::<4>();
        let values = numbers.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect();
        file.0.insert(name.to_owned(), HostTensor::new(view.shape(), values));
    }
    networks(&file)?;
    sets(&file)
}

fn networks(file: &File) -> Result<(), Failure> {
    let device = Device::flex();
    let inception = InceptionConfig::published();
    let inception = inception.load(file.below("inception.weights."), &device)?;
    for pictures in ["large", "small"] {
        let images = file.tensor::<4>(&format!("inception.{pictures}.images"))?;
        let mut problem = None;
        inception.walk(images.clone(), &mut |stage, x| {
            let name = format!("inception.{pictures}.stage.{stage}");
            problem = problem.take().or(file.compare(&name, x.clone()).err());
        });
        if let Some(problem) = problem {
            return Err(problem);
        }
        let features = inception.features(images);
        let name = |part: &str| format!("inception.{pictures}.{part}");
        file.compare(&name("pool"), features.pool)?;
        file.compare(&name("spatial"), features.spatial)?;
        file.compare(&name("logits_without_bias"), features.logits_without_bias)?;
        file.compare(&name("logits"), features.logits)?;
    }
    let (prediction, target) = (file.tensor::<4>("prediction")?, file.tensor::<4>("target")?);
    for (name, config) in [("vgg", ChainConfig::vgg16()), ("alex", ChainConfig::alexnet())] {
        let weights = file.below(&format!("lpips_{name}.weights."));
        let heads = file.below(&format!("lpips_{name}.heads."));
        let distance = Lpips::load(&config, weights, heads, &device)?;
        let distance = distance.distance(prediction.clone(), target.clone());
        file.compare(&format!("lpips_{name}.distance"), distance)?;
    }
    let convnext = ConvNextConfig::small().load(file.below("convnext.weights."), &device)?;
    file.compare("convnext.logits", convnext.logits(target))
}

fn gaussian(rows: &FeatureMatrix) -> Result<Gaussian, Failure> {
    let mut moments = Moments::new(rows.width());
    moments.add(0, rows)?;
    Ok(moments.gaussian()?)
}

/// The first 2023 of each row, as wide as sFID's features.
fn narrow(rows: &FeatureMatrix) -> Result<FeatureMatrix, Failure> {
    let values = rows.values().chunks(rows.width()).flat_map(|row| &row[..2023]).copied();
    Ok(FeatureMatrix::new(2023, values.collect())?)
}

fn sets(file: &File) -> Result<(), Failure> {
    let (reference, samples) = (file.rows("reference.pool")?, file.rows("samples.pool")?);
    let distance = frechet_distance(&gaussian(&samples)?, &gaussian(&reference)?)?;
    file.compare_value("torch_fidelity.fid", distance)?;
    file.compare_value("guided_diffusion.fid", distance)?;
    let (few, others) = (narrow(&samples)?, narrow(&reference)?);
    let distance = frechet_distance(&gaussian(&few)?, &gaussian(&others)?)?;
    file.compare_value("guided_diffusion.sfid", distance)?;
    let kernel = kernel_distance(&samples, &reference, KernelSubsets::TORCH_FIDELITY)?;
    file.compare_value("torch_fidelity.kid", kernel.mean)?;
    file.compare_value("torch_fidelity.kid_deviation", kernel.deviation)?;
    let logits = file.rows("logits")?;
    let score = inception_score(&logits, ScoreSplits::TORCH_FIDELITY)?;
    file.compare_value("torch_fidelity.inception_score", score.mean)?;
    let score = inception_score(&logits, ScoreSplits::GUIDED_DIFFUSION)?;
    file.compare_value("guided_diffusion.inception_score", score.mean)?;
    let found = precision_recall(&reference, &samples, 3)?;
    file.compare_value("brute_force.precision", found.precision)?;
    file.compare_value("brute_force.recall", found.recall)?;
    file.compare_value("guided_diffusion.precision", found.precision)?;
    file.compare_value("guided_diffusion.recall", found.recall)
}
