"""Random changes of images, as pure functions: what is drawn comes in, nothing is drawn here.

Legend: N samples, C channels, H height, W width. Images may be of whole numbers; they stay in their range.
"""

import torch

LABEL_OUTSIDE = 255
"""The label of what lies outside an image; it counts for nothing."""
_ROUNDING = 1e-5
"""A deviation of this share of the mean may be rounding: the channel is flat."""


def find_pixels(rows_nh: torch.Tensor, columns_nw: torch.Tensor) -> torch.Tensor:
    """[N, H, W]: the place, row by row, of the pixel of that row and column; beyond the border it is mirrored."""
    width = columns_nw.shape[1]
    return (_reflect(rows_nh) * width)[:, :, None] + _reflect(columns_nw)[:, None, :]


def take_pixels(images_nchw: torch.Tensor, pixels_nhw: torch.Tensor) -> torch.Tensor:
    """Each image with the pixels that `find_pixels` found."""
    flat = pixels_nhw.flatten(1)[:, None].expand(-1, images_nchw.shape[1], -1)
    return images_nchw.flatten(2).gather(2, flat).view(images_nchw.shape)


def take_labels(maps_nhw: torch.Tensor, rows_nh: torch.Tensor, columns_nw: torch.Tensor) -> torch.Tensor:
    """Each map with the labels at those rows and columns, `LABEL_OUTSIDE` beyond the border."""
    taken = take_pixels(maps_nhw[:, None], find_pixels(rows_nh, columns_nw))[:, 0]
    inside = _is_inside(rows_nh)[:, :, None] & _is_inside(columns_nw)[:, None, :]
    return taken.masked_fill(~inside, LABEL_OUTSIDE)


def recolour(
    images_nchw: torch.Tensor, brightness_n: torch.Tensor, contrast_n: torch.Tensor, saturation_n: torch.Tensor
) -> torch.Tensor:
    """Changed in units of the image's own mean and deviation per channel.

    `brightness` is added, `contrast` multiplies what differs from the mean, and `saturation` what differs from the mean
    over the channels. So it commutes with any preprocessing that shifts and scales channels.
    """
    values = images_nchw.float()
    deviation, mean = torch.std_mean(values, dim=(2, 3), correction=0, keepdim=True)
    own = torch.where(deviation > mean.abs() * _ROUNDING, (values - mean) / deviation, 0)
    grey, saturation = own.mean(1, keepdim=True), _per_image(saturation_n)
    own = (own * saturation + grey * (1 - saturation)) * _per_image(contrast_n) + _per_image(brightness_n)
    return _as_before(own * deviation + mean, images_nchw)


def blend(images_nchw: torch.Tensor, others_nchw: torch.Tensor, share_n: torch.Tensor) -> torch.Tensor:
    """`share` of each image and the rest of the other: mixup (Zhang et al. 2018)."""
    share = _per_image(share_n)
    return _as_before(images_nchw.float() * share + others_nchw.float() * (1 - share), images_nchw)


def find_boxes(centres_n2: torch.Tensor, area_n: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """[N, H, W], true in a box of the image's form round each centre: the box of CutMix (Yun et al. 2019).

    Centres and `area`, the share that the box covers where no border cuts it, lie between 0 and 1.
    """
    height, width = (
        _is_near(centres_n2[:, axis] * length, area_n.sqrt() * length / 2, length) for axis, length in enumerate(size)
    )
    return height[:, :, None] & width[:, None, :]


def paste(images_nchw: torch.Tensor, others_nchw: torch.Tensor, boxes_nhw: torch.Tensor) -> torch.Tensor:
    """The other image where its box is true."""
    return torch.where(boxes_nhw[:, None], others_nchw, images_nchw)


def _reflect(places_nl: torch.Tensor) -> torch.Tensor:
    """Places on a line of length L, mirrored at its ends as often as need be; the end itself is not repeated."""
    last = places_nl.shape[1] - 1
    return last - (places_nl.remainder(2 * last) - last).abs() if last else torch.zeros_like(places_nl)


def _is_inside(places_nl: torch.Tensor) -> torch.Tensor:
    return (places_nl >= 0) & (places_nl < places_nl.shape[1])


def _is_near(centre_n: torch.Tensor, reach_n: torch.Tensor, length: int) -> torch.Tensor:
    """[N, length], true for pixels whose middle is at most `reach` from the centre."""
    middles = torch.arange(length, device=centre_n.device) + 0.5
    return (middles - centre_n[:, None]).abs() <= reach_n[:, None]


def _per_image(numbers_n: torch.Tensor) -> torch.Tensor:
    return numbers_n.float().view(-1, 1, 1, 1)


def _as_before(values: torch.Tensor, before: torch.Tensor) -> torch.Tensor:
    """In the type of `before`; whole numbers are rounded and kept in range."""
    if before.is_floating_point():
        return values.to(before.dtype)
    limits = torch.iinfo(before.dtype)
    return values.round().clamp(limits.min, limits.max).to(before.dtype)
