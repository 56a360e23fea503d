//! Compiles the few calls that tch does not bind, and lets the program find libtorch without help.

use std::path::PathBuf;

fn main() {
    println!("cargo:rerun-if-changed=src/torch/shim.cpp");
    println!("cargo:rerun-if-env-changed=LIBTORCH_CXX11_ABI");
    let Some(library) = std::env::var_os("DEP_TCH_LIBTORCH_LIB").map(PathBuf::from) else {
        println!("cargo:warning=torch-sys does not say where libtorch lies");
        return;
    };
    let include = library.with_file_name("include");
    let abi = std::env::var("LIBTORCH_CXX11_ABI").unwrap_or_else(|_| "1".to_owned());
    cc::Build::new()
        .cpp(true)
        .warnings(false)
        .std("c++17")
        .include(&include)
        .include(include.join("torch/csrc/api/include"))
        .define("_GLIBCXX_USE_CXX11_ABI", abi.as_str())
        .file("src/torch/shim.cpp")
        .compile("evenkeel_shim");
    // What this program was built with is looked for last: LD_LIBRARY_PATH comes before it.
    println!("cargo:rustc-link-arg=-Wl,-rpath,{}", library.display());
    // RUNPATH does not reach the libraries of the libraries.
    let cuda = library.join("../../nvidia/cu13/lib");
    if cuda.is_dir() {
        println!("cargo:rustc-link-arg=-Wl,-rpath,{}", cuda.display());
    }
}
