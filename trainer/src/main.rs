//! The program that `evenkeel rebalance` starts.

fn main() {
    evenkeel_trainer::torch::load_cuda();
    println!("{}", tch::Cuda::is_available());
}
