#include "token_scores.hpp"
#include "softmax.hpp"
#include "widest.hpp"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <future>
#include <iterator>
#include <mutex>
#include <numeric>
#include <stdexcept>
#include <string>
#include <vector>

namespace steerx {
namespace {

void top_tokens(const float *logits, size_t n_vocab, double log_z, std::span<int32_t> token,
                std::span<float> log_prob) {
    std::vector<int32_t> order(n_vocab);
    std::iota(order.begin(), order.end(), 0);
    const auto better = [logits](int32_t a, int32_t b) {
        return logits[a] > logits[b] || (logits[a] == logits[b] && a < b);
    };
    const auto middle = order.begin() + static_cast<std::ptrdiff_t>(token.size());
    std::partial_sort(order.begin(), middle, order.end(), better);
    for (size_t k = 0; k < token.size(); ++k) {
        token[k] = order[k];
        log_prob[k] = static_cast<float>(logits[order[k]] - log_z);
    }
}

// sums (logit bias,): of p (n,) times each row of factors (bias, n). Block by block, so that a part of p stays
// in the nearest cache for all logit biases.
STEERX_WIDEST void weighted_sums(std::span<const float> p, const float *factors, std::span<double> sums) {
    constexpr size_t lanes = 16;
    constexpr size_t block = 1024;
    const size_t n = p.size();
    const size_t n_whole = n - n % lanes;
    std::fill(sums.begin(), sums.end(), 0.0);
    for (size_t begin = 0; begin < n_whole; begin += block) {
        const size_t end = std::min(begin + block, n_whole);
        for (size_t bias = 0; bias < sums.size(); ++bias) {
            const float *factor = factors + bias * n;
            float sum[lanes] = {}; // gcc unrolls a std::array to scalars here, at a third of the speed
            for (size_t i = begin; i < end; i += lanes) {
                for (size_t lane = 0; lane < lanes; ++lane) {
                    sum[lane] += p[i + lane] * factor[i + lane];
                }
            }
            sums[bias] += std::accumulate(std::begin(sum), std::end(sum), 0.0);
        }
    }
    for (size_t i = n_whole; i < n; ++i) {
        for (size_t bias = 0; bias < sums.size(); ++bias) {
            sums[bias] += static_cast<double>(p[i]) * factors[bias * n + i];
        }
    }
}

STEERX_WIDEST void add_scaled(std::span<const float> p, double scale, double *sums) {
    for (size_t i = 0; i < p.size(); ++i) {
        sums[i] += scale * p[i];
    }
}

// One thread's: it scores rows, and sums what is made of whole distributions.
class Scorer {
  public:
    Scorer(size_t n_vocab, const TokenScores &out) : n_vocab_(n_vocab), out_(out) {
        if (!out.expected.empty() || !out.biased.empty()) {
            p_.resize(n_vocab);
        }
        expected_.resize(out.expected.size());
        sums_.resize(out.bias_factors.size() / n_vocab);
    }

    void score_row(const float *logits, int32_t target, size_t row) {
        const std::span<const float> row_logits(logits, n_vocab_);
        const float max = largest(row_logits);
        const bool with_entropy = !out_.entropy.empty();
        const Moments moments = softmax_moments(row_logits, max, with_entropy, p_.empty() ? nullptr : p_.data());
        const double log_sum = std::log(moments.sum);
        const double above_max = static_cast<double>(logits[target]) - max;
        out_.log_prob[row] = static_cast<float>(above_max - log_sum);
        if (with_entropy) {
            out_.entropy[row] = static_cast<float>(log_sum - moments.weighted / moments.sum);
        }
        if (out_.top_k > 0) {
            const auto k = static_cast<size_t>(out_.top_k);
            top_tokens(logits, n_vocab_, max + log_sum, out_.top_token.subspan(row * k, k),
                       out_.top_log_prob.subspan(row * k, k));
        }
        if (!expected_.empty()) {
            add_scaled(p_, 1.0 / moments.sum, expected_.data());
        }
        if (!sums_.empty()) {
            weighted_sums(p_, out_.bias_factors.data(), sums_);
        }
        const size_t n_rows = out_.log_prob.size();
        for (size_t bias = 0; bias < sums_.size(); ++bias) {
            const double own = std::log(static_cast<double>(out_.bias_factors[bias * n_vocab_ + target]));
            out_.biased[bias * n_rows + row] = static_cast<float>(above_max + own - std::log(sums_[bias]));
        }
    }

    void hand_in() const {
        for (size_t i = 0; i < expected_.size(); ++i) {
            out_.expected[i] += expected_[i];
        }
    }

  private:
    size_t n_vocab_;
    const TokenScores &out_;
    std::vector<float> p_;         // (n_vocab,) p(v) up to a factor, or empty where nobody asks
    std::vector<double> expected_; // (n_vocab,) summed over this thread's rows, or empty
    std::vector<double> sums_;     // (logit bias,) scratch
};

} // namespace

void score_tokens(const LlamaApi &api, llama_context *ctx, int32_t n_vocab, std::span<const int32_t> batch_index,
                  std::span<const int32_t> target, int32_t n_threads, const TokenScores &out) {
    const size_t n_rows = batch_index.size();
    std::vector<const float *> logits(n_rows);
    for (size_t row = 0; row < n_rows; ++row) {
        if (target[row] < 0 || target[row] >= n_vocab) {
            throw std::out_of_range("token " + std::to_string(target[row]) + " is not in the vocabulary of " +
                                    std::to_string(n_vocab));
        }
        // Fetched here, one after the other: the first call reorders llama.cpp's output buffer.
        logits[row] = api.llama_get_logits_ith(ctx, batch_index[row]);
        if (logits[row] == nullptr) {
            throw std::out_of_range("row " + std::to_string(batch_index[row]) + " of the batch has no logits");
        }
    }

    std::atomic<size_t> next{0};
    std::mutex adding;
    const auto work = [&] {
        Scorer scorer(static_cast<size_t>(n_vocab), out);
        for (size_t row = next++; row < n_rows; row = next++) {
            scorer.score_row(logits[row], target[row], row);
        }
        const std::lock_guard lock(adding);
        scorer.hand_in();
    };
    // The futures join and hand on what a helper threw.
    std::vector<std::future<void>> helpers;
    for (size_t i = 1; i < std::min(static_cast<size_t>(std::max(n_threads, 1)), n_rows); ++i) {
        helpers.push_back(std::async(std::launch::async, work));
    }
    work();
    for (std::future<void> &helper : helpers) {
        helper.get();
    }
}

} // namespace steerx
