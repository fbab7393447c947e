//! The readers against small files made here: what they read right, and what they say when a file is not what it should be.

use std::io::Write;
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;
use image::{GrayImage, Luma, Rgb, RgbImage};
use metaforge_data::{Classes, Error, ImageSet, Split, folder, idx, omniglot};

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut out = GzEncoder::new(Vec::new(), Compression::fast());
    out.write_all(bytes).unwrap();
    out.finish().unwrap()
}

fn idx_bytes(shape: &[u32], data: &[u8]) -> Vec<u8> {
    let mut out = vec![0, 0, 8, shape.len() as u8];
    shape.iter().for_each(|s| out.extend(s.to_be_bytes()));
    out.extend(data);
    out
}

fn write(path: &Path, bytes: &[u8]) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, bytes).unwrap();
}

/// A failure's text, which has to name the file.
fn refusal<T: std::fmt::Debug>(result: Result<T, Error>, file: &str) -> String {
    let text = result.unwrap_err().to_string();
    assert!(text.contains(file), "`{text}` does not name {file}");
    text
}

#[test]
fn an_idx_file_comes_back_as_written_plain_or_packed() {
    let dir = tempfile::tempdir().unwrap();
    let data: Vec<u8> = (0..24).collect();
    let bytes = idx_bytes(&[2, 3, 4], &data);
    for (name, bytes) in [("plain", bytes.clone()), ("packed.gz", gzip(&bytes))] {
        let path = dir.path().join(name);
        write(&path, &bytes);
        let idx = idx::read(&path, 3).unwrap();
        assert_eq!((idx.shape, idx.data), (vec![2, 3, 4], data.clone()));
    }
}

#[test]
fn a_damaged_idx_file_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("some-idx3-ubyte");
    let good = idx_bytes(&[2, 3, 4], &[7; 24]);
    let mut packed = gzip(&good);
    packed.truncate(packed.len() - 9);
    let mut flipped = gzip(&good);
    let crc = flipped.len() - 8;
    flipped[crc] ^= 0xff;
    let huge = idx_bytes(&[u32::MAX, u32::MAX, u32::MAX], &[]);
    let cases: [(&str, Vec<u8>, &str); 9] = [
        ("truncated data", good[..good.len() - 1].to_vec(), "cut off"),
        ("truncated header", good[..9].to_vec(), "cut off"),
        ("padded", [&good[..], &[0]].concat(), "padded"),
        ("empty", vec![], "starts with []"),
        ("labels as images", idx_bytes(&[2], &[1, 2]), "starts with [00, 00, 08, 01]"),
        ("text", b"<html>not found</html>".to_vec(), "starts with"),
        ("truncated gzip", packed, "gzip"),
        ("wrong checksum", flipped, "gzip"),
        ("absurd sizes", huge, "cut off"),
    ];
    for (case, bytes, says) in cases {
        write(&path, &bytes);
        let text = refusal(idx::read(&path, 3), "some-idx3-ubyte");
        assert!(text.contains(says), "{case}: {text}");
    }
    let text = refusal(idx::read(&dir.path().join("gone"), 3), "gone");
    assert!(text.contains("train-images-idx3-ubyte"), "{text}");
}

#[test]
fn mnist_parts_share_no_image() {
    let dir = tempfile::tempdir().unwrap();
    let n = idx::MNIST_VALIDATION + 20;
    let pixels: Vec<u8> = (0..n).flat_map(|i| [(i % 251) as u8, (i / 251) as u8]).collect();
    let labels: Vec<u8> = (0..n).map(|i| (i * 7 % 10) as u8).collect();
    write(&dir.path().join("train-images-idx3-ubyte"), &idx_bytes(&[n as u32, 1, 2], &pixels));
    write(&dir.path().join("train-labels-idx1-ubyte.gz"), &gzip(&idx_bytes(&[n as u32], &labels)));
    let part = |split| idx::mnist(dir.path(), split).unwrap();
    let (train, val, both) = (part(Split::Train), part(Split::Val), part(Split::TrainVal));
    assert_eq!((train.len(), val.len(), both.len()), (20, idx::MNIST_VALIDATION, n));
    let number = |s: &ImageSet, i: usize| s.image(i)[0] as usize + 251 * s.image(i)[1] as usize;
    assert!((0..20).all(|i| number(&train, i) < 20 && train.labels()[i] as usize == number(&train, i) * 7 % 10));
    assert!((0..val.len()).all(|i| number(&val, i) >= 20));
    let text = refusal(idx::mnist(dir.path(), Split::Test), "t10k-images-idx3-ubyte");
    assert!(text.contains(".gz"), "{text}");
    let text = refusal(idx::mnist(&dir.path().join("mnist/mnist"), Split::Test), "mnist/mnist/t10k");
    let above = format!("name the folder above, {}, as", dir.path().display());
    assert!(text.contains(&above), "{text}");

    write(&dir.path().join("train-labels-idx1-ubyte.gz"), &gzip(&idx_bytes(&[3], &[1, 2, 3])));
    assert!(refusal(idx::mnist(dir.path(), Split::Train), "train-labels").contains("3 labels"));
    write(&dir.path().join("train-labels-idx1-ubyte.gz"), &gzip(&idx_bytes(&[n as u32], &vec![10; n])));
    assert!(refusal(idx::mnist(dir.path(), Split::Train), "train-labels").contains("label 10"));
}

/// A drawing as Omniglot has them: white paper, black ink in the given box.
fn drawing(ink: [u32; 4]) -> Vec<u8> {
    let [x0, y0, x1, y1] = ink;
    let inside = |x, y| (x0..x1).contains(&x) && (y0..y1).contains(&y);
    let picture = GrayImage::from_fn(105, 105, |x, y| Luma([if inside(x, y) { 0 } else { 255 }]));
    let mut out = std::io::Cursor::new(Vec::new());
    picture.write_to(&mut out, image::ImageFormat::Png).unwrap();
    out.into_inner()
}

fn omniglot_files() -> Vec<(String, Vec<u8>)> {
    let mut files = Vec::new();
    for (part, alphabet, character) in [
        ("evaluation", "Zeta", "character02"),
        ("background", "Alpha", "character01"),
        ("evaluation", "Zeta", "character01"),
    ] {
        for d in 1..=2 {
            let x = if alphabet == "Zeta" { 60 } else { 0 } + 10 * d;
            let path = format!("images_{part}/{alphabet}/{character}/0001_{d:02}.png");
            files.push((path, drawing([x, 15, x + 15, 90])));
        }
    }
    files
}

fn tar_of(files: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (path, bytes) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, path, &bytes[..]).unwrap();
    }
    tar.into_inner().unwrap()
}

#[test]
fn omniglot_is_read_the_same_from_an_archive_and_from_folders() {
    let dir = tempfile::tempdir().unwrap();
    let archive = dir.path().join("omniglot/omniglot_png.tar.gz");
    write(&archive, &gzip(&tar_of(&omniglot_files())));
    let packed = omniglot::read(dir.path(), 28).unwrap();
    assert_eq!(packed.names(), ["Alpha/character01", "Zeta/character01", "Zeta/character02"]);
    assert_eq!((packed.shape(), packed.labels()), ([28, 28, 1], &[0, 0, 1, 1, 2, 2][..]));
    // Ink is 1 and stays where it was: the box x 10..25, y 15..90 of 105 is x 2.7..6.7, y 4..24 of 28.
    let mut first = vec![0.0; 784];
    packed.read(0, &[0], &mut first);
    assert!(first[14 * 28 + 4] > 0.95 && first[14 * 28 + 20] < 0.05 && first[28 + 4] < 0.05);
    let ink: f32 = first.iter().sum();
    assert!((ink - 15.0 * 75.0 * (28.0f32 / 105.0).powi(2)).abs() < 3.0, "{ink}");

    std::fs::remove_file(archive).unwrap();
    for (path, bytes) in omniglot_files() {
        write(&dir.path().join("omniglot").join(path), &bytes);
    }
    write(&dir.path().join("omniglot/images_background/Alpha/character01/._0001_01.png"), b"droppings of an archiver");
    assert_eq!(omniglot::read(dir.path(), 28).unwrap(), packed);
}

#[test]
fn damaged_omniglot_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let text = refusal(omniglot::read(dir.path(), 28), "omniglot");
    assert!(text.contains("omniglot_png.tar.gz"), "{text}");

    let text = refusal(omniglot::read(&dir.path().join("omniglot"), 28), "omniglot/omniglot does not exist");
    assert!(text.contains(&format!("name the folder above, {}, as", dir.path().display())), "{text}");

    let archive = dir.path().join("omniglot/omniglot_png.tar.gz");
    let mut files = omniglot_files();
    let plain = tar_of(&files);
    let packed = gzip(&plain);
    write(&archive, &packed[..packed.len() / 2]);
    refusal(omniglot::read(dir.path(), 28), "omniglot_png.tar.gz");
    write(&archive, &gzip(&plain[..plain.len() / 2 + 100]));
    refusal(omniglot::read(dir.path(), 28), "omniglot_png.tar.gz");
    write(&archive, b"<html>moved</html>");
    refusal(omniglot::read(dir.path(), 28), "omniglot_png.tar.gz");
    write(&archive, &gzip(&tar_of(&[("readme.txt".into(), b"hello".to_vec())])));
    refusal(omniglot::read(dir.path(), 28), "omniglot_png.tar.gz");
    files[3].1 = b"no picture".to_vec();
    write(&archive, &gzip(&tar_of(&files)));
    refusal(omniglot::read(dir.path(), 28), "images_background/Alpha/character01/0001_02.png");
}

#[test]
fn a_split_keeps_its_characters_and_a_wrong_line_is_named() {
    let dir = tempfile::tempdir().unwrap();
    write(&dir.path().join("omniglot/omniglot_png.tar.gz"), &gzip(&tar_of(&omniglot_files())));
    let all = omniglot::read(dir.path(), 14).unwrap();
    let split = dir.path().join("omniglot/splits/vinyals/test.txt");
    let read = || omniglot::vinyals(dir.path(), &all, Split::Test);
    assert!(refusal(read(), "test.txt").contains("Vinyals"));

    write(&split, b"Zeta/character02/rot000\nZeta/character02/rot090\nAlpha/character01/rot000\n\n");
    assert_eq!(read().unwrap().names(), ["Zeta/character02", "Alpha/character01"]);
    for (bad, says) in [
        ("Zeta/character02/rot045", "rot000"),
        ("Zeta/character99/rot000", "does not have"),
        ("Zeta", "alphabet/character/rotation"),
    ] {
        write(&split, format!("Zeta/character02/rot000\n{bad}\n").as_bytes());
        let text = refusal(read(), "test.txt");
        assert!(text.contains("line 2") && text.contains(bad) && text.contains(says), "{text}");
    }
    write(&split, b"\n");
    refusal(read(), "test.txt");
}

#[test]
fn a_folder_of_classes_is_read_in_grey_and_in_colour() {
    let dir = tempfile::tempdir().unwrap();
    for (class, colour) in [("cats", [255, 0, 0]), ("birds", [0, 0, 255])] {
        std::fs::create_dir(dir.path().join(class)).unwrap();
        for i in 0..3u32 {
            let picture = RgbImage::from_pixel(20 + i, 10, Rgb(colour));
            picture.save(dir.path().join(class).join(format!("{i}.PNG").replace("1.PNG", "1.png"))).unwrap();
        }
    }
    write(&dir.path().join("cats/notes.txt"), b"not a picture");
    let set = folder::read(dir.path(), [8, 8, 3]).unwrap();
    assert_eq!((set.names(), set.labels()), (&["birds".to_string(), "cats".into()][..], &[0, 0, 0, 1, 1, 1][..]));
    assert!(set.image(0).chunks(3).all(|p| p == [0, 0, 255]) && set.image(5).chunks(3).all(|p| p == [255, 0, 0]));
    // Rec. 709 luma of pure red: 0.2126.
    let grey = folder::read(dir.path(), [8, 8, 1]).unwrap();
    assert!(grey.image(5).iter().all(|&p| p.abs_diff(54) <= 1), "{:?}", grey.image(5));
}

#[test]
fn a_folder_without_readable_classes_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    refusal(folder::read(&dir.path().join("gone"), [8, 8, 1]), "gone");
    refusal(folder::read(dir.path(), [8, 8, 1]), "CLASS");
    std::fs::create_dir(dir.path().join("empty")).unwrap();
    refusal(folder::read(dir.path(), [8, 8, 1]), "empty");
    write(&dir.path().join("empty/text.png"), b"this is text");
    refusal(folder::read(dir.path(), [8, 8, 1]), "text.png");
}

/// The real files, where they are given: METAFORGE_DATA names a folder with mnist/ and omniglot/.
#[test]
fn the_real_sets_have_their_known_sizes() {
    if std::env::var_os("METAFORGE_DATA").is_none() {
        return;
    }
    let dir = metaforge_data::data_dir(None).unwrap();
    let all = omniglot::read(&dir, 28).unwrap();
    assert_eq!((all.len(), all.classes()), (32_460, 1_623));
    assert!((0..all.classes()).all(|c| all.images(c) == 20));
    let part = |split| omniglot::vinyals(&dir, &all, split).unwrap();
    let names = |split| part(split).names().iter().cloned().collect::<std::collections::HashSet<_>>();
    let (train, val, test) = (names(Split::Train), names(Split::Val), names(Split::Test));
    assert_eq!((train.len(), val.len(), test.len(), names(Split::TrainVal).len()), (1028, 172, 423, 1200));
    assert!(train.is_disjoint(&val) && train.is_disjoint(&test) && val.is_disjoint(&test));
    let test = idx::mnist(&dir.join("mnist"), Split::Test).unwrap();
    assert_eq!((test.len(), test.class(7).len()), (10_000, 1_028));
    assert_eq!(idx::mnist(&dir.join("mnist"), Split::Train).unwrap().len(), 50_000);
}
