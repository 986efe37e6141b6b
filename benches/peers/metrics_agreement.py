"""What the originals of this repository's metrics compute, at their full widths, with weights at random.

    python benches/peers/metrics_agreement.py OUT.safetensors GUIDED_DIFFUSION
    cargo run --release -p alitok-metrics --example agreement OUT.safetensors

The first writes inputs and results, the second computes the same and prints the differences.
GUIDED_DIFFUSION is a clone of https://github.com/openai/guided-diffusion; its evaluator's NumPy parts run as they
are, its distances in half precision, which TensorFlow computes, are computed as it says by PyTorch.
Needs torch, torchvision, torch-fidelity, lpips, numpy, scipy and safetensors; no part of the tests.
"""

import sys
import types
from pathlib import Path
from unittest import mock

import numpy as np
import torch

STAGES = [
    *("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "Conv2d_3b_1x1", "Conv2d_4a_3x3"),
    *(f"Mixed_{name}" for name in ("5b", "5c", "5d", "6a", "6b", "6c", "6d", "6e", "7a", "7b", "7c")),
]


def randomize(module, generator):
    """Weights that keep numbers in range; no norm that could be left out unseen."""

    def uniform(tensor, low, high):
        tensor.copy_(low + (high - low) * torch.rand(tensor.shape, generator=generator))

    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            if name.endswith("num_batches_tracked"):
                continue
            if name.endswith("running_var"):
                uniform(tensor, 0.5, 1.5)
            elif name.endswith("layer_scale"):
                uniform(tensor, 0.1, 0.5)
            elif tensor.dim() > 1:
                spread = (6.0 / tensor[0].numel()) ** 0.5
                uniform(tensor, -spread, spread)
            elif name.endswith("weight"):
                uniform(tensor, 0.5, 1.5)
            else:
                uniform(tensor, -0.2, 0.2)


def inception_extractor(features):
    """torch-fidelity's network, which would download its weights."""
    from torch_fidelity import feature_extractor_inceptionv3 as original

    class Unloaded(original.FeatureExtractorInceptionV3):
        def load_state_dict(self, *_):
            pass

    with mock.patch.object(original, "load_state_dict_from_url", lambda *_, **__: {}):
        return Unloaded("inception", features)


def random_inception(seed):
    """Tensors by the names of the public file."""
    network = inception_extractor(["2048"])
    randomize(network, torch.Generator().manual_seed(seed))
    named = network.state_dict().items()
    return {name: tensor for name, tensor in named if not name.endswith("num_batches_tracked")}


def inception(out, generator):
    from torch_fidelity.interpolate_compat_tensorflow import interpolate_bilinear_2d_like_tensorflow1x

    network = inception_extractor(["2048", "logits_unbiased", "logits"])
    randomize(network, generator)
    for name, tensor in network.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            out[f"inception.weights.{name}"] = tensor
    stages = {}
    for name in [*STAGES, "Mixed_6d.branch1x1"]:
        keep = lambda _module, _input, result, name=name: stages.__setitem__(name, result)
        network.get_submodule(name).register_forward_hook(keep)
    for pictures, shape in {"large": (2, 3, 256, 256), "small": (2, 3, 64, 48)}.items():
        images = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
        pool, without_bias, logits = network(images)
        out[f"inception.{pictures}.images"] = images.float()
        resized = interpolate_bilinear_2d_like_tensorflow1x(
            images.float(), size=(299, 299), align_corners=False
        )
        out[f"inception.{pictures}.stage.resized"] = resized.permute(0, 2, 3, 1)
        for name in STAGES:
            out[f"inception.{pictures}.stage.{name}"] = stages[name].permute(0, 2, 3, 1)
        # `mixed_6/conv` by torch-fidelity's own table of names (util_convert_inception_weights.py).
        spatial = stages["Mixed_6d.branch1x1"][:, :7].permute(0, 2, 3, 1).flatten(1)
        out[f"inception.{pictures}.pool"] = pool
        out[f"inception.{pictures}.spatial"] = spatial
        out[f"inception.{pictures}.logits_without_bias"] = without_bias
        out[f"inception.{pictures}.logits"] = logits


def perceptual(out, generator):
    import lpips
    import torchvision

    prediction = torch.rand((2, 3, 128, 96), generator=generator)
    target = (prediction + 0.2 * torch.rand(prediction.shape, generator=generator)).clamp(0, 1)
    out["prediction"], out["target"] = prediction, target
    for net in ("vgg", "alex"):
        distance = lpips.LPIPS(net=net, pnet_rand=True, pretrained=False, verbose=False).eval()
        randomize(distance.net, generator)
        for name, tensor in distance.net.state_dict().items():
            out[f"lpips_{net}.weights.features.{name.split('.', 1)[1]}"] = tensor
        for index, layer in enumerate(distance.lins):
            weight = layer.model[1].weight
            with torch.no_grad():
                weight.copy_(torch.rand(weight.shape, generator=generator))
            out[f"lpips_{net}.heads.lin{index}.model.1.weight"] = weight
        out[f"lpips_{net}.distance"] = distance(prediction, target, normalize=True).flatten()
    network = torchvision.models.convnext_small(weights=None).eval()
    randomize(network, generator)
    for name, tensor in network.state_dict().items():
        out[f"convnext.weights.{name}"] = tensor
    mean, deviation = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    side = torch.nn.functional.interpolate(target, (224, 224), mode="bilinear", antialias=True)
    logits = network(torchvision.transforms.functional.normalize(side, mean, deviation))
    out["convnext.logits"] = logits


def guided_diffusion(clone):
    """The evaluator's module, without TensorFlow."""
    evaluator = types.ModuleType("evaluator")
    source = (Path(clone) / "evaluations" / "evaluator.py").read_text()
    absent = {name: mock.MagicMock() for name in ("requests", "tensorflow", "tensorflow.compat.v1")}
    np.bool = bool  # which NumPy had then
    with mock.patch.dict(sys.modules, absent):
        exec(compile(source, "evaluator.py", "exec"), evaluator.__dict__)

    class Distances:
        """In half precision; sums in single precision, rounded at the end, as accelerators do."""

        def __init__(self, _session):
            pass

        def pairwise_distances(self, first, second):
            u, v = (torch.from_numpy(x).half() for x in (first, second))
            squares = lambda x: (x.float() * x.float()).sum(1).half()
            product = (u.float() @ v.float().T).half()
            return (squares(u)[:, None] - 2 * product + squares(v)[None]).clamp(min=0).float().numpy()

        def less_thans(self, first, first_radii, second, second_radii):
            distances = self.pairwise_distances(first, second)[..., None]
            return (distances <= second_radii).any(1), (distances <= first_radii[:, None]).any(0)

    evaluator.DistanceBlock = Distances
    return evaluator


def brute_force(first, second):
    """Precision and recall by all pairs in double precision."""
    first, second = (torch.from_numpy(x).double() for x in (first, second))
    pairs = lambda a, b: torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")
    radius = lambda x: pairs(x, x).kthvalue(4).values
    across = pairs(first, second)
    precision = (across <= radius(first)[:, None]).any(0).double().mean()
    return precision, (across <= radius(second)[None]).any(1).double().mean()


def sets(out, generator, clone):
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
    from torch_fidelity.metric_isc import isc_features_to_metric
    from torch_fidelity.metric_kid import kid_features_to_metric

    evaluator = guided_diffusion(clone)
    # Few directions hold most of the variance, and nothing is negative, as with Inception's.
    turn = torch.randn((24, 2048), generator=generator) / 24**0.5
    features = {}
    for name, count, scale in (("reference", 3000, 1.0), ("samples", 2500, 1.1)):
        inner = scale * torch.randn((count, 24), generator=generator)
        noise = 0.05 * torch.randn((count, 2048), generator=generator)
        features[name] = (0.3 * (inner @ turn) + noise + 0.1).clamp(min=0)
        out[f"{name}.pool"] = features[name]
    first, second = features["reference"], features["samples"]
    values = {}
    statistics = [fid_features_to_statistics(x) for x in (second, first)]
    values["torch_fidelity.fid"] = fid_statistics_to_metric(*statistics, False)["frechet_inception_distance"]
    # In double precision: kernels of near sets cancel.
    kid = kid_features_to_metric(second.double(), first.double(), verbose=False)
    values["torch_fidelity.kid"] = kid["kernel_inception_distance_mean"]
    values["torch_fidelity.kid_deviation"] = kid["kernel_inception_distance_std"]
    logits = 3.0 * torch.randn((6000, 1008), generator=generator)
    out["logits"] = logits
    score = isc_features_to_metric(logits, 10, True, 2020)
    values["torch_fidelity.inception_score"] = score["inception_score_mean"]

    stand_in = types.SimpleNamespace(softmax_batch_size=512, softmax="softmax", softmax_input="input")
    # The evaluator is given pooled features and multiplies; here the logits are there already.
    softmax = lambda _what, feed_dict: torch.from_numpy(feed_dict["input"]).softmax(1).numpy()
    stand_in.sess = types.SimpleNamespace(run=softmax)
    score = evaluator.Evaluator.compute_inception_score(stand_in, logits.numpy())
    values["guided_diffusion.inception_score"] = score
    compute = lambda x: evaluator.Evaluator.compute_statistics(None, x.numpy())
    values["guided_diffusion.fid"] = compute(second).frechet_distance(compute(first))
    # Spatial features are as any others to the formula; only their width differs.
    spatial = [x[:, :2023] for x in (second, first)]
    values["guided_diffusion.sfid"] = compute(spatial[0]).frechet_distance(compute(spatial[1]))
    stand_in.manifold_estimator = evaluator.ManifoldEstimator(None)
    found = evaluator.Evaluator.compute_prec_recall(stand_in, first.numpy(), second.numpy())
    values["guided_diffusion.precision"], values["guided_diffusion.recall"] = found
    found = brute_force(first.numpy(), second.numpy())
    values["brute_force.precision"], values["brute_force.recall"] = found
    for name, value in values.items():
        print(f"{name:<36} {float(value):.9g}")
        # Two numbers in single precision, of which the sum is the value to 48 bits.
        high = torch.tensor([float(value)], dtype=torch.float64).float()
        low = (torch.tensor([float(value)], dtype=torch.float64) - high.double()).float()
        out[f"values.{name}"] = torch.cat([high, low])


def main():
    from safetensors.torch import save_file

    path, clone = sys.argv[1:]
    generator = torch.Generator().manual_seed(1)
    out = {}
    with torch.no_grad():
        inception(out, generator)
        perceptual(out, generator)
        sets(out, generator, clone)
    save_file({name: tensor.detach().float().contiguous() for name, tensor in out.items()}, path)


if __name__ == "__main__":
    main()
