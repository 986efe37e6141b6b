//! t-SNE: points of many dimensions on a plane, with their neighbours beside them.

use std::array::from_fn;

use rayon::prelude::*;
use tokens::noise::Noise;

use crate::{FeatureMatrix, MetricsError};

/// Iterations in which attraction is exaggerated, so that clusters find together.
const EARLY: usize = 250;
/// How much it is exaggerated then.
const EXAGGERATION: f32 = 12.0;
/// A place at which q and q² · distance are zero in single precision, and no step overflows.
const FAR: f32 = 1e18;
/// Sums that run side by side.
const LANES: usize = 16;

/// A projection by t-distributed stochastic neighbour embedding.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tsne {
    /// How many neighbours a point is near to, about: 5 to 50.
    pub perplexity: f64,
    /// Steps of gradient descent.
    pub iterations: usize,
    /// Seed of where the points begin.
    pub seed: u64,
}

impl Default for Tsne {
    /// The method's usual setting.
    fn default() -> Self {
        Self { perplexity: 30.0, iterations: 1000, seed: 0 }
    }
}

impl Tsne {
    /// Places on a plane, a point a row (van der Maaten and Hinton 2008). What is near stays near;
    /// distances between clusters mean nothing.
    ///
    /// As in the Barnes-Hut variant (van der Maaten 2014), only the 3 · perplexity nearest
    /// neighbours attract. Repulsion is exact. The result does not depend on the number of threads.
    ///
    /// # Errors
    /// [`MetricsError::TooFew`] with fewer rows than 3 · perplexity + 1.
    pub fn project(&self, rows: &FeatureMatrix) -> Result<Vec<[f32; 2]>, MetricsError> {
        let count = rows.rows();
        let neighbours = (3.0 * self.perplexity) as usize;
        if count <= neighbours || neighbours == 0 {
            let needed = neighbours.max(1) + 1;
            return Err(MetricsError::TooFew { what: "t-SNE", needed, got: count });
        }
        let affinities = Affinities::new(rows, neighbours, self.perplexity);
        let mut places = Places::begin(count, self.seed);
        // The rate by which a cluster of any size takes about as many steps (Belkina et al. 2019).
        let rate = (count as f32 / EXAGGERATION / 4.0).max(50.0);
        let mut velocity = vec![[0.0_f32; 2]; count];
        let mut gains = vec![[1.0_f32; 2]; count];
        for iteration in 0..self.iterations {
            let (exaggeration, momentum) =
                if iteration < EARLY { (EXAGGERATION, 0.5) } else { (1.0, 0.8) };
            let gradient = places.gradient(&affinities, exaggeration);
            let state = velocity.iter_mut().zip(&mut gains).zip(&gradient).enumerate();
            for (point, ((velocity, gains), gradient)) in state {
                for (axis, (speed, gain)) in velocity.iter_mut().zip(gains).enumerate() {
                    let turns = (gradient[axis] > 0.0) == (*speed > 0.0);
                    *gain = if turns { (*gain * 0.8).max(0.01) } else { *gain + 0.2 };
                    *speed = momentum * *speed - rate * *gain * gradient[axis];
                    places.axes[axis][point] += *speed;
                }
            }
            places.center();
        }
        let [x, y] = &places.axes;
        Ok(x.iter().zip(y).take(count).map(|(&x, &y)| [x, y]).collect())
    }
}

/// How much each pair of points belongs together: symmetric, sparse, adding up to 1.
struct Affinities {
    /// Neighbour and weight, a list a point.
    rows: Vec<Vec<(u32, f32)>>,
}

impl Affinities {
    fn new(rows: &FeatureMatrix, neighbours: usize, perplexity: f64) -> Self {
        let count = rows.rows();
        let near: Vec<Vec<(u32, f64)>> = (0..count)
            .into_par_iter()
            .map(|point| {
                let mut distances: Vec<(u32, f64)> = (0..count)
                    .filter(|&other| other != point)
                    .map(|other| (other as u32, distance(rows.row(point), rows.row(other))))
                    .collect();
                // Ties by number, so that the order is one.
                let nearer = |a: &(u32, f64), b: &(u32, f64)| {
                    a.1.total_cmp(&b.1).then_with(|| a.0.cmp(&b.0))
                };
                distances.select_nth_unstable_by(neighbours - 1, nearer);
                distances.truncate(neighbours);
                conditional(&mut distances, perplexity);
                distances
            })
            .collect();
        let mut both: Vec<Vec<(u32, f32)>> = vec![Vec::new(); count];
        for (point, list) in near.iter().enumerate() {
            for &(other, probability) in list {
                let half = (probability / (2.0 * count as f64)) as f32;
                both[point].push((other, half));
                both[other as usize].push((point as u32, half));
            }
        }
        for list in &mut both {
            list.sort_by_key(|&(other, _)| other);
            list.dedup_by(|next, kept| {
                let same = next.0 == kept.0;
                kept.1 += if same { next.1 } else { 0.0 };
                same
            });
        }
        Self { rows: both }
    }
}

/// The squared Euclidean distance.
fn distance(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(&a, &b)| (f64::from(a) - f64::from(b)).powi(2)).sum()
}

/// Turns squared distances into probabilities exp(−β · distance), normalized, with the β at which
/// their entropy is the logarithm of the perplexity.
fn conditional(distances: &mut [(u32, f64)], perplexity: f64) {
    let nearest = distances.iter().map(|&(_, distance)| distance).fold(f64::INFINITY, f64::min);
    let (mut low, mut high, mut precision) = (0.0_f64, f64::INFINITY, 1.0_f64);
    // Halving from any float to any other takes few hundred steps.
    for _ in 0..200 {
        let (mut sum, mut weighted) = (0.0, 0.0);
        for &(_, distance) in &*distances {
            let weight = (-precision * (distance - nearest)).exp();
            sum += weight;
            weighted += weight * (distance - nearest);
        }
        let excess = sum.ln() + precision * weighted / sum - perplexity.ln();
        if excess.abs() < 1e-6 {
            break;
        }
        (low, high) = if excess > 0.0 { (precision, high) } else { (low, precision) };
        precision = if high.is_finite() { (low + high) / 2.0 } else { 2.0 * precision };
        // All are equally far, or nearly.
        if !precision.is_finite() || precision == 0.0 {
            break;
        }
    }
    let precision = if precision.is_finite() { precision } else { 0.0 };
    let weight = |distance: f64| (-precision * (distance - nearest)).exp();
    let sum: f64 = distances.iter().map(|&(_, distance)| weight(distance)).sum();
    for (_, distance) in distances {
        *distance = weight(*distance) / sum;
    }
}

/// Where the points are, an axis after the other, filled up to whole lanes with points so far away
/// that they count for nothing.
struct Places {
    count: usize,
    axes: [Vec<f32>; 2],
}

impl Places {
    /// Beside each other, at random.
    fn begin(count: usize, seed: u64) -> Self {
        let axis = |name: &str| {
            let mut noise = Noise::of_parameter(seed, name, 0);
            let mut places: Vec<f32> = (0..count).map(|_| 1e-4 * noise.normal() as f32).collect();
            places.resize(count.next_multiple_of(LANES), FAR);
            places
        };
        Self { count, axes: ["t-SNE.x", "t-SNE.y"].map(axis) }
    }

    /// Moves the middle to zero.
    fn center(&mut self) {
        for axis in &mut self.axes {
            let places = &mut axis[..self.count];
            let sum: f64 = places.iter().map(|&place| f64::from(place)).sum();
            let middle = (sum / self.count as f64) as f32;
            places.iter_mut().for_each(|place| *place -= middle);
        }
    }

    /// The slope of the Kullback-Leibler divergence of the places' affinities from the given ones,
    /// times `exaggeration` where they attract.
    fn gradient(&self, affinities: &Affinities, exaggeration: f32) -> Vec<[f32; 2]> {
        let [xs, ys] = &self.axes;
        let parts: Vec<([f32; 2], [f32; 2], f32)> = (0..self.count)
            .into_par_iter()
            .map(|point| {
                let (x, y) = (xs[point], ys[point]);
                let mut attraction = [0.0; 2];
                for &(other, weight) in &affinities.rows[point] {
                    let (dx, dy) = (x - xs[other as usize], y - ys[other as usize]);
                    let pull = weight / (1.0 + dx * dx + dy * dy);
                    attraction[0] += pull * dx;
                    attraction[1] += pull * dy;
                }
                let (repulsion, total) = repulsion(xs, ys, x, y);
                (attraction, repulsion, total)
            })
            .collect();
        let total: f64 = parts.iter().map(|&(_, _, total)| f64::from(total)).sum();
        let share = (1.0 / total.max(f64::MIN_POSITIVE)) as f32;
        let slope = |(attraction, repulsion, _): ([f32; 2], [f32; 2], f32)| {
            let axis =
                |axis: usize| 4.0 * (exaggeration * attraction[axis] - share * repulsion[axis]);
            [axis(0), axis(1)]
        };
        parts.into_iter().map(slope).collect()
    }
}

/// Σ q² · (difference) and Σ q over all other points, with q = 1 / (1 + distance²).
fn repulsion(xs: &[f32], ys: &[f32], x: f32, y: f32) -> ([f32; 2], f32) {
    let [mut along_x, mut along_y, mut total] = [[0.0_f32; LANES]; 3];
    let add = |sums: &mut [f32; LANES], values: [f32; LANES]| {
        sums.iter_mut().zip(values).for_each(|(sum, value)| *sum += value);
    };
    for (xs, ys) in xs.chunks_exact(LANES).zip(ys.chunks_exact(LANES)) {
        let dx: [f32; LANES] = from_fn(|lane| x - xs[lane]);
        let dy: [f32; LANES] = from_fn(|lane| y - ys[lane]);
        let q = from_fn(|lane| 1.0 / (1.0 + dx[lane] * dx[lane] + dy[lane] * dy[lane]));
        add(&mut total, q);
        add(&mut along_x, from_fn(|lane| q[lane] * q[lane] * dx[lane]));
        add(&mut along_y, from_fn(|lane| q[lane] * q[lane] * dy[lane]));
    }
    let sum = |lanes: [f32; LANES]| lanes.iter().sum::<f32>();
    // The point itself has q = 1 and no difference.
    ([sum(along_x), sum(along_y)], sum(total) - 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::features::by_rule;

    /// The Kullback-Leibler divergence by its definition, in f64.
    fn divergence(affinities: &Affinities, places: &Places) -> f64 {
        let [xs, ys] = &places.axes;
        let q = |a: usize, b: usize| {
            let (dx, dy) = (f64::from(xs[a] - xs[b]), f64::from(ys[a] - ys[b]));
            1.0 / (1.0 + dx * dx + dy * dy)
        };
        let pairs = |a: usize| (0..places.count).filter(move |&b| a != b);
        let total: f64 = (0..places.count)
            .flat_map(|a| pairs(a).map(move |b| (a, b)))
            .map(|(a, b)| q(a, b))
            .sum();
        let mut sum = 0.0;
        for (a, row) in affinities.rows.iter().enumerate() {
            for &(b, p) in row {
                let p = f64::from(p);
                sum += p * (p * total / q(a, b as usize)).ln();
            }
        }
        sum
    }

    fn spread(count: usize) -> Places {
        let mut places = Places::begin(count, 3);
        for axis in &mut places.axes {
            axis[..count].iter_mut().for_each(|place| *place *= 2e4);
        }
        places
    }

    #[test]
    fn should_follow_the_slope_of_the_divergence() {
        let rows = by_rule(50, 6, 1, |value| value);
        let affinities = Affinities::new(&rows, 15, 5.0);
        let places = spread(50);
        let gradient = places.gradient(&affinities, 1.0);
        for point in [0, 7, 49] {
            for (axis, &got) in gradient[point].iter().enumerate() {
                let moved = |by: f32| {
                    let mut moved = Places { count: 50, axes: places.axes.clone() };
                    moved.axes[axis][point] += by;
                    divergence(&affinities, &moved)
                };
                let step = 1.0 / 64.0;
                let slope = (moved(step) - moved(-step)) / (2.0 * f64::from(step));
                let got = f64::from(got);
                assert!((got - slope).abs() < 1e-4 * slope.abs() + 1e-6, "{got}, not {slope}");
            }
        }
    }

    #[test]
    fn should_give_each_point_as_many_neighbours_as_asked() {
        let rows = by_rule(60, 6, 1, |value| value);
        let mut distances: Vec<(u32, f64)> =
            (1..60).map(|other| (other as u32, distance(rows.row(0), rows.row(other)))).collect();
        conditional(&mut distances, 9.0);
        let sum: f64 = distances.iter().map(|&(_, p)| p).sum();
        let entropy: f64 = distances.iter().map(|&(_, p)| -p * p.max(1e-300).ln()).sum();
        assert!((sum - 1.0).abs() < 1e-12 && (entropy.exp() - 9.0).abs() < 1e-4, "{sum} {entropy}");
        // Of equally far points, each is as near.
        let mut equal: Vec<(u32, f64)> = (0..12).map(|other| (other, 2.5)).collect();
        conditional(&mut equal, 4.0);
        assert!(equal.iter().all(|&(_, p)| (p - 1.0 / 12.0).abs() < 1e-12), "{equal:?}");

        let affinities = Affinities::new(&rows, 15, 5.0);
        let all: f64 = affinities.rows.iter().flatten().map(|&(_, p)| f64::from(p)).sum();
        assert!((all - 1.0).abs() < 1e-5, "{all}");
    }

    #[test]
    fn should_keep_clusters_apart_on_any_number_of_threads() {
        // Three clusters of 30 in eight dimensions.
        let mut values = by_rule(90, 8, 1, |value| value).values().to_vec();
        for (row, values) in values.chunks_exact_mut(8).enumerate() {
            values[row % 3] += 6.0;
        }
        let rows = FeatureMatrix::new(8, values).unwrap();
        let tsne = Tsne { perplexity: 8.0, iterations: 500, seed: 1 };
        let places = tsne.project(&rows).unwrap();
        for (point, place) in places.iter().enumerate() {
            let gap = |other: usize| {
                let [dx, dy] = [0, 1].map(|axis| places[other][axis] - place[axis]);
                dx * dx + dy * dy
            };
            let others = (0..90).filter(|&other| other != point);
            let nearest = others.min_by(|&a, &b| gap(a).total_cmp(&gap(b))).unwrap();
            assert_eq!(nearest % 3, point % 3, "{point} and {nearest}");
        }
        let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
        assert_eq!(pool.install(|| tsne.project(&rows)).unwrap(), places);
        let few = Tsne::default().project(&rows);
        assert!(matches!(few, Err(MetricsError::TooFew { needed: 91, got: 90, .. })));
    }
}
