"""The models of pictures that are tried: one small representative of each family of three packages.

A family is what a package calls so: a module and the first word of a model's name in timm, a model in
torchvision and transformers. One kind mixes positions by convolutions and pooling alone.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Callable, Dict, Iterable, NamedTuple, Tuple

from torch import nn

from benchmarks.zoo.pictures import hugging_face

Bucket = Tuple[int, int]
SMALL: Tuple[Bucket, ...] = ((96, 128), (128, 96))
LARGE: Tuple[Bucket, ...] = ((128, 160), (160, 128))
CONVOLUTION, ATTENTION = "convolution", "attention"
KINDS = {CONVOLUTION: "of convolutions", ATTENTION: "with attention over space, or the like"}


class Entry(NamedTuple):
    """One model: how it is made, what it mixes positions by, and the pictures that it is tried with."""

    package: str
    kind: str
    make: Callable[[], nn.Module]
    buckets: Tuple[Bucket, ...] = SMALL
    least: int = 32
    options: Dict[str, Any] = {}
    large: bool = False  # tried last

    @property
    def one_size(self) -> bool:
        """Whether the model takes no other size than its bucket's."""
        return len(self.buckets) == 1 and self.least == max(self.buckets[0])


TORCHVISION = """
    alexnet convnext_tiny densenet121 efficientnet_b0 efficientnet_v2_s googlenet inception_v3 mnasnet0_5
    mobilenet_v2 mobilenet_v3_large mobilenet_v3_small regnet_x_400mf regnet_y_400mf resnet18 resnet50
    resnext50_32x4d shufflenet_v2_x0_5 squeezenet1_0 squeezenet1_1 vgg11 vgg11_bn wide_resnet50_2
"""
SEGMENTATION = """
    deeplabv3_mobilenet_v3_large deeplabv3_resnet50 fcn_resnet50 lraspp_mobilenet_v3_large
"""
TORCHVISION_ATTENTION = "maxvit_t swin_t swin_v2_t vit_b_16"

TIMM = """
    bat_resnext26ts eca_resnext26ts gcresnet33ts gcresnext26ts gernet_s mobileone_s1 regnetz_b16
    repvgg_a0 resnet51q resnext26ts seresnet33ts seresnext26ts convmixer_768_32 convnext_atto
    convnext_atto_rms convnextv2_atto cs3darknet_focus_s cspdarknet53 cspresnet50 cspresnext50 darknet17
    darknetaa53 sedarknet21 cspnext_tiny densenet121 densenetblur121d dla34 dla60_res2net dpn68
    efficientnet_b0 efficientnet_lite0 efficientnetv2_rw_t fbnetc_100 gc_efficientnetv2_rw_t mixnet_s
    mnasnet_small mobilenet_edgetpu_100 mobilenetv2_035 semnasnet_050 spnasnet_100 tf_efficientnet_b0
    tf_efficientnet_lite0 tf_efficientnetv2_b0 tf_mixnet_s tinynet_c fasternet_t0 fastvit_s12
    focalnet_tiny_srf ghostnet_050 ghostnetv2_100 ghostnetv3_050 hardcorenas_b hgnet_tiny hgnetv2_b0
    hrnet_w18_small inception_next_atto inception_resnet_v2 inception_v3 inception_v4 lcnetv2_small
    mambaout_femto convformer_s18 poolformer_s12 poolformerv2_s12 fbnetv3_b lcnet_035
    mobilenetv3_small_050 mobilenetv4_conv_small tf_mobilenetv3_small_075 nasnetalarge dm_nfnet_f0
    eca_nfnet_l0 nf_resnet50 nfnet_f0 pnasnet5large rdnet_tiny regnetv_040 regnetx_002 regnety_008_tv
    regnetz_005 repghostnet_050 repvit_m1 res2net50_14w_8s resnest14d ecaresnet26t ecaresnetlight
    ecaresnext26t_32x4d resnet10t resnet50 resnetaa34d resnetblur18 resnetrs50 resnext50_32x4d seresnet18
    seresnetaa50d seresnext50_32x4d wide_resnet50_2 resnetv2_50 resnetv2_50x1_bit rexnet_100 rexnetr_100
    selecsls42 legacy_seresnet18 legacy_seresnext26_32x4d skresnet18 skresnext50_32x4d starnet_s1
    tresnet_m vgg11_bn eca_vovnet39b ese_vovnet19b_slim_dw vovnet39a legacy_xception xception41
"""
TIMM_ATTENTION = """
    botnet26t_256 eca_botnext26ts_256 halonet26t lambda_resnet26t beit_base_patch16_224 cait_xxs24_224
    coat_tiny convit_tiny cpubone_nano crossvit_tiny_240 csatv2 davit_tiny deit_tiny_patch16_224
    edgenext_x_small efficientformer_l1 efficientformerv2_s0 efficientvim_m1 efficientvit_b0
    efficientvit_m0 eva02_tiny_patch14_224 gcvit_xxtiny hiera_tiny_224 iformer_t levit_128s lowformer_b0
    coatnet_pico_rw_224 maxvit_pico_rw_256 caformer_s18 gmlp_ti16_224 mixer_s16_224 resmlp_12_224
    mobilevit_xxs mobilevitv2_050 mvitv2_tiny nest_tiny nextvit_small pit_xs_224 pvt_v2_b0 sequencer2d_s
    shvit_s1 swiftformer_xs swin_tiny_patch4_window7_224 swinv2_tiny_window8_256 tiny_vit_5m_224
    twins_svt_small visformer_tiny vit_tiny_patch16_224 vit_tiny_r_s16_p8_224
    vit_srelpos_small_patch16_224 vitamin_small_224 volo_d1_224 xcit_nano_12_p8_224
"""
# What timm's factory is given for those that take other sizes than their own if they are told to.
DYNAMIC: Dict[str, Any] = {"dynamic_img_size": True}
LENIENT: Dict[str, Any] = {"strict_img_size": False}
TIMM_OPTIONS: Dict[str, Dict[str, Any]] = {
    **dict.fromkeys(
        (
            *("deit_tiny_patch16_224", "eva02_tiny_patch14_224", "vit_tiny_patch16_224"),
            *("vit_tiny_r_s16_p8_224", "vitamin_small_224"),
        ),
        DYNAMIC,
    ),
    **dict.fromkeys(("swin_tiny_patch4_window7_224", "swinv2_tiny_window8_256"), LENIENT),
}


def _one(size: int, **more: Any) -> Dict[str, Any]:
    """One size is all that it takes: its tables have a number for each position, or a layer a weight. MaxViT
    and BAT take multiples of 256, of which a bucket's own alone is exact."""
    return {"buckets": ((size, size),), "least": size, "options": {"multiple_of": size}, **more}


def _step(step: int, **more: Any) -> Dict[str, Any]:
    return {"options": {"multiple_of": step}, **more}


# What some models need: the least side that they take, larger buckets, the multiples that they take.
LAST: Dict[str, Any] = {"large": True}
TALL: Tuple[Bucket, ...] = ((128, 192), (192, 128))
WINDOWED: Dict[str, Any] = {"buckets": LARGE, "least": 97}  # above it no map is smaller than a window of 3
ONE_SIZE = {
    128: """
        EomtForUniversalSegmentation EomtDinov3ForUniversalSegmentation Data2VecVisionForSemanticSegmentation
        DPTForDepthEstimation DPTForSemanticSegmentation VitPoseForPoseEstimation
    """,
    224: """
        cait_xxs24_224 coat_tiny convit_tiny efficientformer_l1 efficientformerv2_s0 gcvit_xxtiny
        hiera_tiny_224 levit_128s coatnet_pico_rw_224 gmlp_ti16_224 mixer_s16_224 resmlp_12_224
        nest_tiny pit_xs_224 visformer_tiny vit_srelpos_small_patch16_224 volo_d1_224 maxvit_t
        HieraForImageClassification LevitForImageClassification PvtForImageClassification
    """,
    256: "botnet26t_256 eca_botnext26ts_256 maxvit_pico_rw_256 bat_resnext26ts",
}
NEEDS: Dict[str, Dict[str, Any]] = {
    **dict.fromkeys(
        ("dla34", "dla60_res2net", "hrnet_w18_small", "resnetaa34d", "seresnetaa50d", "lambda_resnet26t"),
        _step(32),
    ),
    **{name: _one(size) for size, names in ONE_SIZE.items() for name in names.split()},
    **dict.fromkeys(("beit_base_patch16_224", "vit_b_16"), _one(224, large=True)),
    **dict.fromkeys(("deit_tiny_patch16_224", "vit_tiny_patch16_224"), _step(16)),
    **dict.fromkeys(("swin_tiny_patch4_window7_224", "swinv2_tiny_window8_256"), _step(4)),
    **dict.fromkeys(("cpubone_nano", "mobilevit_xxs", "mobilevitv2_050"), _step(64, buckets=TALL, least=64)),
    **dict.fromkeys(
        ("dm_nfnet_f0", "nfnet_f0", "pnasnet5large", "wide_resnet50_2", "convmixer_768_32", "vgg11_bn"), LAST
    ),
    "alexnet": {"least": 63},
    "csatv2": _step(8, least=64),
    "eva02_tiny_patch14_224": _step(14, buckets=((98, 126), (126, 98)), least=28),
    "halonet26t": _step(256, buckets=((512, 512),), least=256, large=True),
    "vit_tiny_r_s16_p8_224": {"buckets": LARGE, "least": 64},
    "inception_v3": {"least": 75, "buckets": LARGE},
    "inception_v4": {"least": 75, "buckets": LARGE},
    "inception_resnet_v2": {"least": 75, "buckets": LARGE, "large": True},
    "nasnetalarge": {"least": 48, "large": True},
    **dict.fromkeys(
        (
            *("DFineForObjectDetection", "GLPNForDepthEstimation", "PPOCRV5MobileDetForObjectDetection"),
            *("RTDetrForObjectDetection", "RTDetrV2ForObjectDetection"),
        ),
        _step(32),
    ),
    "Swin2SRForImageSuperResolution": _step(8),
    "ZoeDepthForDepthEstimation": _step(32),
    **dict.fromkeys(("SwinForImageClassification", "UperNetForSemanticSegmentation swin"), WINDOWED),
}


@lru_cache(maxsize=1)
def entries() -> Dict[str, Entry]:
    """Every model by ``package/name``."""
    found: Dict[str, Entry] = {}

    def add(
        package: str, kind: str, names: Iterable[str], maker: Callable[[str], Callable[[], nn.Module]]
    ) -> None:
        for name in names:
            found[f"{package}/{name}"] = Entry(package, kind, maker(name), **NEEDS.get(name, {}))

    add("torchvision", CONVOLUTION, TORCHVISION.split(), _torchvision)
    add("torchvision", CONVOLUTION, SEGMENTATION.split(), _torchvision)
    add("transformers", CONVOLUTION, hugging_face.CONVOLUTIONS, hugging_face.maker)
    add("timm", CONVOLUTION, TIMM.split(), _timm)
    add("torchvision", ATTENTION, TORCHVISION_ATTENTION.split(), _torchvision)
    add("transformers", ATTENTION, hugging_face.ATTENTION, hugging_face.maker)
    add("timm", ATTENTION, TIMM_ATTENTION.split(), _timm)
    return found


def _torchvision(name: str) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        from torchvision.models import get_model  # type: ignore[import-not-found]

        extra: Dict[str, Any] = {"weights": None}
        if name in ("googlenet", "inception_v3"):
            extra.update(aux_logits=False, init_weights=True)
        if name in SEGMENTATION.split():
            extra["weights_backbone"] = None
        model: nn.Module = get_model(name, **extra)
        return model

    return make


def _timm(name: str) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        import timm  # type: ignore[import-not-found]

        model: nn.Module = timm.create_model(name, **TIMM_OPTIONS.get(name, {}))
        return model

    return make
