//! A backward pass in parts: what stands before a stack of blocks, each of its blocks and what
//! follows it are graphs of their own, and [`Tape::backward`] leads the gradient from one to the
//! next.
//!
//! That serves two ends. Activation checkpointing by block (Chen et al. 2016): a stack keeps the
//! input of each block and nothing else, and the backward pass computes the rest again, one block
//! at a time. (Burn's own strategy recomputes cheap operations, of which the fused ones leave
//! few.) And gradients that are handed out while the backward pass goes on, so that they can travel
//! meanwhile: Burn hands out those of one graph when all of them are there.

use std::collections::HashMap;

use burn::{
    module::{Module, ParamId, list_param_ids},
    tensor::{Gradients, Tensor},
};

/// What a tape keeps of each block until the backward pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// Its input: the backward pass runs the block again.
    Inputs,
    /// All that the backward pass needs.
    Activations,
}

/// Where the graph of one forward pass was cut.
pub struct Tape<'a> {
    keep: Keep,
    cuts: Vec<Cut<'a>>,
}

/// What a tape keeps of one block.
struct Segment<'a> {
    parameters: Vec<ParamId>,
    graph: Graph<'a>,
}

/// Gives the input and the output of a block, between which its graph is.
type Graph<'a> = Box<dyn FnOnce() -> (Tensor<3>, Tensor<3>) + 'a>;

struct Cut<'a> {
    /// The end of the graph before.
    before: Tensor<3>,
    /// The blocks in between.
    blocks: Vec<Segment<'a>>,
    /// The start of the graph behind.
    behind: Tensor<3>,
    /// The gradient that has reached `behind` so far.
    gradient: Option<Tensor<3>>,
}

/// Runs a stack of blocks, on a tape if there is one. `run` is given a block, its number and its
/// input; it must be a pure function. With a tape, what enters must depend on something that
/// requires gradients.
///
/// # Shapes
/// Any, kept.
pub fn stack<'a, M: Module>(
    tape: Option<&mut Tape<'a>>,
    blocks: &'a [M],
    x: Tensor<3>,
    run: impl Fn(&M, usize, Tensor<3>) -> Tensor<3> + Clone + 'a,
) -> Tensor<3> {
    match tape {
        None => blocks.iter().enumerate().fold(x, |x, (number, block)| run(block, number, x)),
        Some(tape) => tape.stack(blocks, x, run),
    }
}

impl<'a> Tape<'a> {
    /// An empty tape.
    #[must_use]
    pub fn new(keep: Keep) -> Self {
        Self { keep, cuts: Vec::new() }
    }

    fn stack<M: Module>(
        &mut self,
        blocks: &'a [M],
        before: Tensor<3>,
        run: impl Fn(&M, usize, Tensor<3>) -> Tensor<3> + Clone + 'a,
    ) -> Tensor<3> {
        let mut x = before.clone().inner();
        let mut kept = Vec::with_capacity(blocks.len());
        for (number, block) in blocks.iter().enumerate() {
            let graph: Graph<'a> = match self.keep {
                Keep::Inputs => {
                    let (again, input) = (run.clone(), x.clone());
                    x = run(&block.valid(), number, x);
                    Box::new(move || {
                        let input = Tensor::from_inner(input).require_grad();
                        let output = again(block, number, input.clone());
                        (input, output)
                    })
                }
                Keep::Activations => {
                    let input = Tensor::from_inner(x).require_grad();
                    let output = run(block, number, input.clone());
                    x = output.clone().inner();
                    Box::new(move || (input, output))
                }
            };
            kept.push(Segment { parameters: list_param_ids(block), graph });
        }
        let behind = Tensor::from_inner(x).require_grad();
        self.cuts.push(Cut { before, blocks: kept, behind: behind.clone(), gradient: None });
        behind
    }

    /// Cuts the graph here. To be done where something is used both before and behind a stack, so
    /// that no part of the graph is walked twice.
    #[must_use]
    pub fn cut(&mut self, before: Tensor<3>) -> Tensor<3> {
        let behind = Tensor::from_inner(before.clone().inner()).require_grad();
        let cut = Cut { before, blocks: Vec::new(), behind: behind.clone(), gradient: None };
        self.cuts.push(cut);
        behind
    }

    /// The backward pass of a loss. `take` is given gradients part by part; those of one parameter
    /// add up. Beside them it is given the parameters that later parts have nothing for: those of
    /// blocks, if nothing but stacks on this tape uses them. Of all others that is certain at the
    /// end.
    pub fn backward(self, loss: Tensor<1>, mut take: impl FnMut(Gradients, &[ParamId])) {
        let mut cuts = self.cuts;
        let mut uses = HashMap::<ParamId, usize>::new();
        let segments = cuts.iter().flat_map(|cut| &cut.blocks);
        for parameter in segments.flat_map(|segment| &segment.parameters) {
            *uses.entry(*parameter).or_default() += 1;
        }
        let mut complete = |segment: &Segment<'_>| -> Vec<ParamId> {
            let mut last_use = |parameter: &ParamId| {
                let left = uses.get_mut(parameter).expect("all uses were counted");
                *left -= 1;
                *left == 0
            };
            segment.parameters.iter().copied().filter(|parameter| last_use(parameter)).collect()
        };
        let mut gradients = loss.backward();
        loop {
            for cut in &mut cuts {
                if let Some(part) = cut.behind.grad_remove(&mut gradients) {
                    cut.gradient = Some(match cut.gradient.take() {
                        Some(sum) => sum + part,
                        None => part,
                    });
                }
            }
            take(gradients, &[]);
            // A cut behind which nothing has led to the loss has nothing to add.
            let next = std::iter::from_fn(|| cuts.pop()).find_map(|cut| {
                if cut.gradient.is_none() {
                    cut.blocks.iter().for_each(|segment| drop(complete(segment)));
                }
                Some((cut.before, cut.blocks, cut.gradient?))
            });
            let Some((before, blocks, mut gradient)) = next else { return };
            for segment in blocks.into_iter().rev() {
                let complete = complete(&segment);
                let (input, output) = (segment.graph)();
                let mut inner = product(output, gradient).backward();
                gradient = input
                    .grad_remove(&mut inner)
                    .expect("the output of a block depends on its input");
                take(inner, &complete);
            }
            gradients = product(before, gradient).backward();
        }
    }
}

/// A number whose gradient with respect to `x` is the given one.
fn product(x: Tensor<3>, gradient: Tensor<3>) -> Tensor<1> {
    (x * Tensor::from_inner(gradient)).sum()
}
