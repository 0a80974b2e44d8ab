//! Pictures of pages, small enough to be part of a repository: a page has few colours, and 256 tell them apart.

use std::collections::HashMap;

use anyhow::ensure;
use color_quant::NeuQuant;

/// Colours of a picture.
const COLOURS: usize = 256;
/// One pixel in so many is looked at to choose them.
const SAMPLED: i32 = 10;
/// Bytes of a pixel.
const PIXEL: usize = 4;

/// Returns a PNG with a palette that looks like this one.
pub fn shrunk(picture: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut decoder = png::Decoder::new(std::io::Cursor::new(picture));
    decoder.set_transformations(png::Transformations::ALPHA | png::Transformations::STRIP_16);
    let mut reader = decoder.read_info()?;
    let mut pixels = vec![0; reader.output_buffer_size().unwrap_or_default()];
    let info = reader.next_frame(&mut pixels)?;
    ensure!(info.color_type == png::ColorType::Rgba, "the picture is {:?}", info.color_type);
    pixels.truncate(info.buffer_size());
    let palette = NeuQuant::new(SAMPLED, COLOURS, &pixels);
    // A page repeats the same colours: each is looked up once.
    let mut known: HashMap<&[u8], u8> = HashMap::new();
    let places: Vec<u8> = pixels
        .chunks_exact(PIXEL)
        .map(|pixel| *known.entry(pixel).or_insert_with(|| u8::try_from(palette.index_of(pixel)).unwrap_or_default()))
        .collect();
    let mut written = Vec::new();
    let mut encoder = png::Encoder::new(&mut written, info.width, info.height);
    encoder.set_color(png::ColorType::Indexed);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.set_palette(palette.color_map_rgb());
    encoder.set_compression(png::Compression::High);
    encoder.set_filter(png::Filter::NoFilter);
    encoder.write_header()?.write_image_data(&places)?;
    Ok(written)
}
