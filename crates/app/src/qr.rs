//! A link challenge drawn as an image: PNG, SVG, or characters for a terminal.
//!
//! A WhatsApp QR is about 250 characters, so 57 modules a side; with the quiet zone and six pixels a
//! module the PNG is 390 pixels wide and below 2 kB.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use qrcode::render::{svg, unicode};
use qrcode::{Color, EcLevel, QrCode};

/// Pixels a module in the PNG.
const MODULE_PIXELS: usize = 6;
/// White modules around the code, as the standard asks.
const QUIET_MODULES: usize = 4;

/// The text cannot be drawn; a challenge of WhatsApp always can.
#[derive(Debug, thiserror::Error)]
pub enum QrError {
    #[error("the text is too long for a QR code")]
    TooLong(#[source] qrcode::types::QrError),
    #[error("the image could not be encoded")]
    Png(#[source] png::EncodingError),
}

fn encode(text: &str) -> Result<QrCode, QrError> {
    QrCode::with_error_correction_level(text, EcLevel::L).map_err(QrError::TooLong)
}

/// Draws the code as a PNG with one bit a pixel.
pub fn png(text: &str) -> Result<Vec<u8>, QrError> {
    let code = encode(text)?;
    let modules = code.width();
    let side = (modules + 2 * QUIET_MODULES) * MODULE_PIXELS;
    let row_bytes = side.div_ceil(8);
    // One is white: the sample depth is 1 bit of grey.
    let mut pixels = vec![0xFF_u8; row_bytes * side];
    let colors = code.to_colors();
    for (index, _) in colors
        .iter()
        .enumerate()
        .filter(|(_, color)| **color == Color::Dark)
    {
        let left = (index % modules + QUIET_MODULES) * MODULE_PIXELS;
        let top = (index / modules + QUIET_MODULES) * MODULE_PIXELS;
        for y in top..top + MODULE_PIXELS {
            for x in left..left + MODULE_PIXELS {
                pixels[y * row_bytes + x / 8] &= !(0x80 >> (x % 8));
            }
        }
    }
    let mut out = Vec::with_capacity(2048);
    let side = u32::try_from(side).unwrap_or(u32::MAX);
    let mut encoder = png::Encoder::new(&mut out, side, side);
    encoder.set_color(png::ColorType::Grayscale);
    encoder.set_depth(png::BitDepth::One);
    let mut writer = encoder.write_header().map_err(QrError::Png)?;
    writer.write_image_data(&pixels).map_err(QrError::Png)?;
    writer.finish().map_err(QrError::Png)?;
    Ok(out)
}

/// Draws the code as the `data:` URL of its PNG.
pub fn data_url(text: &str) -> Result<String, QrError> {
    Ok(format!(
        "data:image/png;base64,{}",
        STANDARD.encode(png(text)?)
    ))
}

/// Draws the code as an SVG document.
pub fn svg(text: &str) -> Result<String, QrError> {
    Ok(encode(text)?
        .render::<svg::Color<'_>>()
        .min_dimensions(390, 390)
        .build())
}

/// Draws the code with half-block characters, dark on light as scanners expect, for a terminal with
/// a dark background.
pub fn terminal(text: &str) -> Result<String, QrError> {
    Ok(encode(text)?
        .render::<unicode::Dense1x2>()
        .dark_color(unicode::Dense1x2::Light)
        .light_color(unicode::Dense1x2::Dark)
        .build())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_challenge_becomes_a_small_png_of_the_right_size() {
        let text = format!(
            "2@{},{},{}",
            "A".repeat(100),
            "B".repeat(44),
            "C".repeat(44)
        );
        let image = png(&text).unwrap();
        assert!(image.len() < 4096, "{} bytes", image.len());
        let reader = png::Decoder::new(std::io::Cursor::new(&image))
            .read_info()
            .unwrap();
        let modules = encode(&text).unwrap().width();
        let want = u32::try_from((modules + 8) * MODULE_PIXELS).unwrap();
        assert_eq!((reader.info().width, reader.info().height), (want, want));
        assert!(
            data_url(&text)
                .unwrap()
                .starts_with("data:image/png;base64,iVBOR")
        );
        assert!(svg(&text).unwrap().contains("<svg"));
        assert!(terminal(&text).unwrap().lines().count() > 25);
    }

    #[test]
    fn the_first_finder_pattern_is_dark_behind_a_white_border() {
        let image = png("hello").unwrap();
        let mut reader = png::Decoder::new(std::io::Cursor::new(&image))
            .read_info()
            .unwrap();
        let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
        let info = reader.next_frame(&mut pixels).unwrap();
        let row = &pixels[info.line_size * QUIET_MODULES * MODULE_PIXELS..][..info.line_size];
        assert_eq!(row[..3], [0xFF, 0xFF, 0xFF], "24 white pixels");
        assert_eq!(row[3..5], [0, 0], "then the finder's bar");
        assert_eq!(pixels[0], 0xFF, "the border above");
    }

    #[test]
    fn a_text_that_no_code_holds_is_an_error() {
        assert!(png(&"x".repeat(4000)).is_err());
    }
}
