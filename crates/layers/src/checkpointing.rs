//! Activation checkpointing by block (Chen et al. 2016): a stack of blocks keeps the input of each
//! block and nothing else; the backward pass computes the rest again, one block at a time.
//!
//! Burn's own strategy recomputes cheap operations, of which the fused ones leave few. Here the
//! graph is cut: what stands before a stack, each of its blocks and what follows it are graphs of
//! their own, and [`Tape::backward`] leads the gradient from one to the next.

use burn::{
    module::Module,
    tensor::{Gradients, Tensor},
};

/// Where the graph of one forward pass was cut.
#[derive(Default)]
pub struct Tape<'a> {
    cuts: Vec<Cut<'a>>,
}

type Run<'a> = Box<dyn Fn(Tensor<3>) -> Tensor<3> + 'a>;

struct Cut<'a> {
    /// The end of the graph before.
    before: Tensor<3>,
    /// The inputs of blocks in between, without a graph, and how to run them with one.
    blocks: Vec<(Tensor<3>, Run<'a>)>,
    /// The start of the graph behind.
    behind: Tensor<3>,
    /// The gradient that has reached `behind` so far.
    gradient: Option<Tensor<3>>,
}

/// Runs a stack of blocks, on a tape if there is one. `run` is given a block, its number and its
/// input; it must be a pure function.
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
    fn stack<M: Module>(
        &mut self,
        blocks: &'a [M],
        before: Tensor<3>,
        run: impl Fn(&M, usize, Tensor<3>) -> Tensor<3> + Clone + 'a,
    ) -> Tensor<3> {
        let mut x = before.clone().inner();
        let mut kept: Vec<(Tensor<3>, Run<'a>)> = Vec::with_capacity(blocks.len());
        for (number, block) in blocks.iter().enumerate() {
            let again = run.clone();
            kept.push((x.clone(), Box::new(move |x| again(block, number, x))));
            x = run(&block.valid(), number, x);
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
    /// add up.
    pub fn backward(self, loss: Tensor<1>, mut take: impl FnMut(Gradients)) {
        let mut cuts = self.cuts;
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
            take(gradients);
            // A cut behind which nothing has led to the loss has nothing to add.
            let next = std::iter::from_fn(|| cuts.pop())
                .find_map(|cut| Some((cut.before, cut.blocks, cut.gradient?)));
            let Some((before, blocks, mut gradient)) = next else { return };
            for (input, run) in blocks.into_iter().rev() {
                let input = Tensor::from_inner(input).require_grad();
                let mut inner = product(run(input.clone()), gradient).backward();
                gradient = input
                    .grad_remove(&mut inner)
                    .expect("the output of a block depends on its input");
                take(inner);
            }
            gradients = product(before, gradient).backward();
        }
    }
}

/// A number whose gradient with respect to `x` is the given one.
fn product(x: Tensor<3>, gradient: Tensor<3>) -> Tensor<1> {
    (x * Tensor::from_inner(gradient)).sum()
}
