// C++: exceptions through many frames, destructors, rethrow, RTTI, containers, threads that carry exceptions, locales of iostream.
#include <algorithm>
#include <exception>
#include <functional>
#include <future>
#include <iostream>
#include <map>
#include <memory>
#include <mutex>
#include <numeric>
#include <sstream>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

static int alive;

struct Counted {
    Counted() { alive++; }
    ~Counted() { alive--; }
};

struct Base {
    virtual ~Base() = default;
    virtual std::string name() const { return "base"; }
};
struct Derived : Base {
    std::string name() const override { return "derived"; }
};

static int deep(int depth)
{
    Counted here;
    if (depth == 0)
        throw std::runtime_error("bottom");
    return deep(depth - 1) + 1;
}

static void rethrow()
{
    try {
        deep(10);
    } catch (const std::exception &error) {
        Counted here;
        std::throw_with_nested(std::logic_error("outer"));
    }
}

static void show_nested(const std::exception &error, int level = 0)
{
    std::cout << std::string(level, ' ') << error.what() << '\n';
    try {
        std::rethrow_if_nested(error);
    } catch (const std::exception &inner) {
        show_nested(inner, level + 1);
    }
}

int main()
{
    try {
        deep(100);
    } catch (const std::runtime_error &error) {
        std::cout << "caught " << error.what() << ", alive " << alive << '\n';
    }
    try {
        rethrow();
    } catch (const std::exception &error) {
        show_nested(error);
        std::cout << "alive " << alive << '\n';
    }
    int caught = 0;
    for (int i = 0; i < 1000; i++) {
        try {
            if (i % 3 == 0)
                throw i;
            if (i % 3 == 1)
                throw std::string("text");
            throw Derived();
        } catch (int) {
            caught += 1;
        } catch (const std::string &) {
            caught += 10;
        } catch (const Base &base) {
            caught += base.name() == "derived" ? 100 : 0;
        }
    }
    std::cout << "caught " << caught << '\n';

    std::unique_ptr<Base> base = std::make_unique<Derived>();
    std::cout << base->name() << ' ' << (dynamic_cast<Derived *>(base.get()) != nullptr) << '\n';
    try {
        dynamic_cast<Derived &>(*std::make_unique<Base>());
    } catch (const std::bad_cast &) {
        std::cout << "bad cast\n";
    }
    try {
        std::vector<int>().at(3);
    } catch (const std::out_of_range &) {
        std::cout << "out of range\n";
    }
    try {
        std::vector<char> huge(size_t(1) << 60);
        std::cout << huge.size() << '\n';
    } catch (const std::bad_alloc &) {
        std::cout << "bad alloc\n";
    }

    auto future = std::async(std::launch::async, [] { return deep(5); });
    try {
        future.get();
    } catch (const std::runtime_error &error) {
        std::cout << "from a thread: " << error.what() << '\n';
    }
    std::mutex mutex;
    std::map<int, int> counts;
    std::vector<std::thread> threads;
    for (int t = 0; t < 4; t++)
        threads.emplace_back([&, t] {
            for (int i = 0; i < 500; i++) {
                std::lock_guard<std::mutex> lock(mutex);
                counts[(i * 7 + t) % 10]++;
            }
        });
    for (auto &thread : threads)
        thread.join();
    for (auto &[key, value] : counts)
        std::cout << key << ':' << value << ' ';
    std::cout << '\n';

    std::vector<double> numbers(1000);
    std::iota(numbers.begin(), numbers.end(), 0.5);
    std::sort(numbers.begin(), numbers.end(), std::greater<>());
    std::ostringstream text;
    text.precision(17);
    text << std::accumulate(numbers.begin(), numbers.end(), 0.0) << ' ' << numbers.front() / 3;
    std::cout << text.str() << '\n';
    std::cout << "alive " << alive << std::endl;
    throw std::runtime_error("nobody catches this");
}
