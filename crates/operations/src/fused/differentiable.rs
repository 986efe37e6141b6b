//! An operation with a gradient of its own, as Burn's automatic differentiation records it.

use std::{fmt, marker::PhantomData};

use burn::backend::{
    Autodiff, Backend,
    autodiff::{
        checkpoint::{base::Checkpointer, strategy::CheckpointStrategy},
        grads::Gradients,
        ops::{Backward, Ops, OpsKind},
    },
    tensor::FloatTensor,
};

/// Runs an operation on `inputs` and records how its gradient is found.
///
/// `forward` returns the output and, if it is told that somebody waits for gradients, what the
/// backward pass needs. `gradient` is given that, the gradient of the output, and which inputs'
/// gradients are waited for; what it returns for others is dropped.
pub(super) fn differentiable<B, C, S, const N: usize>(
    inputs: [FloatTensor<Autodiff<B, C>>; N],
    forward: impl FnOnce([FloatTensor<B>; N], bool) -> (FloatTensor<B>, Option<S>),
    gradient: impl FnOnce(S, FloatTensor<B>, [bool; N]) -> [Option<FloatTensor<B>>; N] + Send + 'static,
) -> FloatTensor<Autodiff<B, C>>
where
    B: Backend,
    C: CheckpointStrategy,
    S: Clone + Send + fmt::Debug + 'static,
{
    let mut nodes = [const { None }; N];
    let mut place = 0;
    let inputs = inputs.map(|input| {
        let (tensor, node) = input.into_parts();
        nodes[place] = Some(node);
        place += 1;
        tensor
    });
    let nodes = nodes.map(|node| node.expect("every input has a node"));
    let operation = Operation { gradient, state: PhantomData };
    match Backward::<B, N>::prepare::<C>(operation, nodes).compute_bound().stateful() {
        OpsKind::Tracked(tracked) => {
            let (output, state) = forward(inputs, true);
            tracked.finish(state.expect("the backward pass needs a state"), output)
        }
        OpsKind::UnTracked(untracked) => untracked.finish(forward(inputs, false).0),
    }
}

/// A result that the backward pass needs, too.
pub(super) fn with_result<B: Backend>(
    result: FloatTensor<B>,
    keep: bool,
) -> (FloatTensor<B>, Option<FloatTensor<B>>) {
    let state = keep.then(|| result.clone());
    (result, state)
}

struct Operation<F, S> {
    gradient: F,
    state: PhantomData<fn() -> S>,
}

impl<F, S> fmt::Debug for Operation<F, S> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Operation")
    }
}

impl<B, F, S, const N: usize> Backward<B, N> for Operation<F, S>
where
    B: Backend,
    F: FnOnce(S, FloatTensor<B>, [bool; N]) -> [Option<FloatTensor<B>>; N] + Send + 'static,
    S: Clone + Send + fmt::Debug + 'static,
{
    type State = S;

    fn backward(self, ops: Ops<S, N>, gradients: &mut Gradients, _checkpointer: &mut Checkpointer) {
        let gradient = gradients.consume::<B>(&ops.node);
        let waited_for = ops.parents.each_ref().map(Option::is_some);
        let found = (self.gradient)(ops.state, gradient, waited_for);
        for (parent, found) in ops.parents.into_iter().zip(found) {
            if let (Some(parent), Some(found)) = (parent, found) {
                gradients.register::<B>(parent.id, found);
            }
        }
    }
}
