//! `alitok data`

use std::path::Path;

use anyhow::Result;
use pixels::{
    Picture, bundle,
    crop::{center_crop, ten_crop},
};

use crate::{args::DataVerb, images, progress};

pub(crate) fn run(verb: &DataVerb) -> Result<()> {
    match verb {
        DataVerb::Crops { image, size, ten_crop, out } => crops(image, *size, *ten_crop, out),
        DataVerb::Bundle { package, out } => {
            let summary = bundle::build(package, out)?;
            for class in &summary.classes {
                let (name, train, held_out) = (&class.class, class.train, class.held_out);
                progress::result(&format!("{name:20} {train:5} to learn {held_out:4} held out"))?;
            }
            progress::result(&format!("{} bytes in {}", summary.bytes, out.display()))
        }
    }
}

fn crops(image: &Path, size: usize, ten: bool, out: &Path) -> Result<()> {
    let picture = Picture::read(image)?;
    let crops = if ten { ten_crop(&picture, size)? } else { vec![center_crop(&picture, size)?] };
    images::make_folder(out)?;
    for (index, crop) in crops.iter().enumerate() {
        crop.write_png(out.join(format!("{index}.png")))?;
    }
    Ok(())
}
