use std::{io::Write, sync::OnceLock};

use tokens::noise::{Noise, Purpose};

use super::*;

/// The first GPU, or the driver on the CPU. Tests that find neither do nothing and say so.
pub(crate) fn device() -> Option<Device> {
    static DEVICE: OnceLock<Option<Device>> = OnceLock::new();
    let open = || match Device::open(None) {
        Ok(device) => Some(device),
        Err(GpuError::NoAdapter) => {
            // Past the test harness, which keeps what passing tests print to itself.
            let _ = writeln!(
                std::io::stderr(),
                "NOT TESTED: no GPU and no software driver; install mesa-vulkan-drivers"
            );
            None
        }
        Err(error) => panic!("{error}"),
    };
    DEVICE.get_or_init(open).clone()
}

fn random(seed: u64, count: usize) -> Vec<f32> {
    let mut noise = Noise::new(seed, Purpose::Initialization, 0, 0);
    (0..count).map(|_| noise.uniform() as f32 * 2.0 - 1.0).collect()
}

fn read(device: &Device, buffer: &Buffer, count: usize) -> Vec<f32> {
    let bytes = 4 * count as u64;
    let readable = Buffer::readable(device, "test", count).unwrap();
    let mut values = Vec::new();
    device
        .checked("test", 0, || {
            let mut encoder = device.wgpu().create_command_encoder(&Default::default());
            encoder.copy_buffer_to_buffer(buffer.wgpu(), 0, readable.wgpu(), 0, bytes);
            device.queue().submit([encoder.finish()]);
        })
        .unwrap();
    device
        .read(readable.wgpu(), bytes, |bytes| values = bytemuck::pod_collect_to_vec(bytes))
        .unwrap();
    values
}

/// A product with random numbers.
struct Case {
    shape: ProductShape,
    weights: Vec<Vec<f32>>,
    bias: Vec<f32>,
    norm: Vec<f32>,
    before: f32,
}

impl Case {
    fn new(
        inputs: usize,
        outputs: usize,
        precision: Precision,
        finish: Finish,
        norm: bool,
    ) -> Self {
        let parts = if finish == Finish::SiluGate { 2 } else { 1 };
        let weights = (0..parts).map(|part| random(part, inputs * outputs)).collect();
        let shape = ProductShape { inputs, outputs, precision, finish, norm: norm.then_some(1e-5) };
        let bias = match finish {
            Finish::SiluGate => vec![0.0; outputs],
            _ => random(7, outputs),
        };
        Self { shape, weights, bias, norm: random(8, inputs), before: 0.75 }
    }

    fn x(&self, rows: usize) -> Vec<f32> {
        random(9, rows * self.shape.inputs)
    }

    /// On the GPU, in bands of at most `most` bytes.
    fn run(&self, device: &Device, rows: usize, most: u64) -> Vec<f32> {
        let ProductShape { inputs, outputs, precision, .. } = self.shape;
        let kernels = Arc::new(ProductKernels::new(device, self.shape).unwrap());
        let matrix =
            Matrix::pack(device, "w", &self.weights, [outputs, inputs], precision, most).unwrap();
        let buffer = |values: &[f32]| Buffer::of(device, "test", values).unwrap();
        let (bias, norm) = (buffer(&self.bias), buffer(&self.norm));
        let x = buffer(&self.x(rows));
        let normed = Buffer::zeros(device, "test", rows * inputs).unwrap();
        let out = buffer(&vec![self.before; rows * outputs]);
        let counts = uniform(device, [rows as u32, 0, 0, 0]).unwrap();
        let buffers = ProductBuffers {
            counts: &counts,
            bias: &bias,
            norm: self.shape.norm.map(|_| &norm),
            x: &x,
            normed: &normed,
            out: &out,
        };
        let product = Product::new(device, &kernels, &matrix, &buffers).unwrap();
        let bands = matrix.bands.len();
        let dispatches = device
            .checked("test", 0, || {
                let mut encoder = device.wgpu().create_command_encoder(&Default::default());
                let mut pass = encoder.begin_compute_pass(&Default::default());
                let dispatches = product.run(&mut pass, rows);
                drop(pass);
                device.queue().submit([encoder.finish()]);
                dispatches
            })
            .unwrap();
        let norms = usize::from(rows >= MANY && self.shape.norm.is_some());
        assert_eq!(dispatches, bands + norms, "dispatches");
        read(device, &out, rows * outputs)
    }

    /// Plain loops in f64.
    fn expected(&self, rows: usize) -> Vec<f32> {
        let ProductShape { inputs, outputs, precision, finish, norm } = self.shape;
        let mut result = Vec::new();
        for x in self.x(rows).chunks(inputs) {
            let squares: f64 = x.iter().map(|&x| f64::from(x).powi(2)).sum();
            let inverse =
                norm.map(|epsilon| (squares / inputs as f64 + f64::from(epsilon)).sqrt().recip());
            for output in 0..outputs {
                let dot = |weights: &[f32]| -> f64 {
                    let row = &weights[output * inputs..][..inputs];
                    let largest = row.iter().fold(0.0f32, |most, weight| most.max(weight.abs()));
                    let scale = largest / 127.0;
                    let terms = x.iter().zip(row).enumerate().map(|(i, (&x, &weight))| {
                        let weight = match precision {
                            Precision::F32 => weight,
                            Precision::Bf16 => numerics::round_to_bf16(weight),
                            Precision::Int8 => (weight / scale).round() * scale,
                        };
                        let factor =
                            inverse.map_or(1.0, |inverse| inverse * f64::from(self.norm[i]));
                        f64::from(x) * factor * f64::from(weight)
                    });
                    terms.sum()
                };
                let sum = dot(&self.weights[0]);
                let biased = sum + f64::from(self.bias[output]);
                let value = match finish {
                    Finish::Bias => biased,
                    Finish::Add => biased + f64::from(self.before),
                    Finish::SiluGate => sum / (1.0 + (-sum).exp()) * dot(&self.weights[1]),
                    Finish::Gelu => f64::from(numerics::gelu::<false>(biased as f32)),
                };
                result.push(value as f32);
            }
        }
        result
    }
}

/// Largest difference, relative to the largest number.
fn difference(got: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(got.len(), expected.len());
    let largest = expected.iter().fold(1.0f32, |most, value| most.max(value.abs()));
    let differences = got.iter().zip(expected).map(|(got, expected)| (got - expected).abs());
    assert!(got.iter().all(|value| value.is_finite()));
    differences.fold(0.0f32, f32::max) / largest
}

const WHOLE: u64 = 1 << 30;

#[test]
fn should_multiply_as_plain_loops_do() {
    let Some(device) = device() else { return };
    for precision in [Precision::F32, Precision::Bf16, Precision::Int8] {
        for (inputs, outputs, finish, norm) in [
            (192, 576, Finish::Bias, true),
            (512, 192, Finish::Add, false),
            (192, 512, Finish::SiluGate, true),
            (192, 100, Finish::Gelu, false),
            // Less than a slice, less than a panel.
            (4, 3, Finish::Bias, false),
            (20, 33, Finish::SiluGate, true),
        ] {
            let case = Case::new(inputs, outputs, precision, finish, norm);
            for rows in [1, 2, 3, 4, 5, MANY - 1, MANY, 70] {
                let got = case.run(&device, rows, WHOLE);
                let difference = difference(&got, &case.expected(rows));
                assert!(difference < 2e-6, "{:?}, {rows} rows: {difference}", case.shape);
            }
        }
    }
}

#[test]
fn should_give_a_row_the_same_bits_in_any_company() {
    let Some(device) = device() else { return };
    for precision in [Precision::F32, Precision::Bf16, Precision::Int8] {
        for (finish, norm) in [(Finish::Bias, true), (Finish::Add, false), (Finish::SiluGate, true)]
        {
            let case = Case::new(192, 100, precision, finish, norm);
            let many = case.run(&device, 70, WHOLE);
            for rows in [1, 2, 5, MANY] {
                let few = case.run(&device, rows, WHOLE);
                assert_eq!(few, many[..few.len()], "{:?}, {rows} rows", case.shape);
            }
        }
    }
}

#[test]
fn should_split_a_matrix_that_no_binding_holds() {
    let Some(device) = device() else { return };
    for (finish, precision) in [
        (Finish::Bias, Precision::Bf16),
        (Finish::SiluGate, Precision::Bf16),
        (Finish::SiluGate, Precision::Int8),
    ] {
        let case = Case::new(64, 100, precision, finish, false);
        for rows in [2, 30] {
            let whole = case.run(&device, rows, WHOLE);
            // Two panels a band, then not even one.
            for most in [2 * 4096 * case.weights.len() as u64, 1] {
                assert_eq!(case.run(&device, rows, most), whole, "{finish:?}, {rows} rows");
            }
        }
    }
}

#[test]
fn should_name_the_shader_that_is_refused() {
    let Some(device) = device() else { return };
    let error = Kernel::new(&device, "nonsense", &Constants::default(), &["fn main( {"], &[]);
    let error = error.unwrap_err();
    assert!(matches!(&error, GpuError::Validation { what, .. } if what == "nonsense"), "{error}");
}
